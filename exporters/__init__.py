"""What leaves the engine: the audit and operations views in Elasticsearch, made from the records in Kafka.

    kafka_source   messages of one topic, read committed; offsets committed only when Elasticsearch has the batch
    sift           drops what the engine sent before, and notices an engine that began anew
    audit          each record becomes one document
    operations     the records of a payment are folded into full-state documents: transfers, steps, incidents
    elastic        bulk writes with external versions; reads documents back by id; indexes behind aliases
    streamer       the loop around them
    rebuild        makes a view again from Kafka and compares it with the one in use

Each stage takes a batch and answers with one outcome per record (`exporters.record.Stage`). A document is a function of
its records in their order, and its version is the position of the last of them, so that any repetition ends in the
same documents. Nothing here is the truth about money; all of it can be made again.
"""
