"""The four servers: how each is configured, started, and asked for its health.

Programs come from the shared cache and are never written to; what a server writes lies in its own folder under the data
folder. All listen on loopback. Settings are those of one machine with two cores, yet durable: a power cut loses nothing
that Zeebe or PostgreSQL acknowledged, and Kafka and Elasticsearch are fed again from Zeebe's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg
from kafka.admin import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError
from psycopg import sql

from hub.stack.errors import PartFailed
from hub.stack.packages import ProgramCache
from hub.stack.privileges import ServerUser, give_to
from hub.stack.state import DATABASE, DATABASE_OWNER, DATABASE_SUPERUSER, StackState
from hub.stack.supervision import Launch, Part, run_to_end

RECORDS_TOPIC = "zeebe"
"""The Kafka topic that holds every record of the engine; one partition, so that their order is total."""

_LARGEST_RECORD = 8 * 2**20
"""Bytes. Zeebe takes commands of 4 MiB, and their records are longer as JSON. By default Kafka takes 1 MiB: the
exporter would try the first larger one for ever, and send nothing behind it."""

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "postgres": ("postgres",),
    "kafka": ("kafka",),
    "elasticsearch": ("elasticsearch",),
    "zeebe": ("zeebe", "zeebe-kafka-exporter"),
}
"""The packages that each server needs."""

_JVM = (
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dfile.encoding=UTF-8",
    "-Djava.awt.headless=true",
)

_LOG4J2 = """\
<Configuration status="warn" shutdownHook="disable">
  <Appenders>
    <Console name="console"><PatternLayout pattern="%d{ISO8601} %-5p %c{1.} %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="org.camunda" level="warn"/>
    <Root level="info"><AppenderRef ref="console"/></Root>
  </Loggers>
</Configuration>
"""


# Elasticsearch reads its logging only from a file of this kind.
_LOG4J2_PROPERTIES = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1.} %m%consoleException%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


@dataclass(frozen=True)
class ServerSite:
    """Where servers run: their programs, their data, their user, and the decided ports and secrets."""

    cache: ProgramCache
    folder: Path
    """Holds one folder per server."""
    user: ServerUser | None
    state: StackState
    logs: Path
    records_classes: bool = False
    """Whether Java servers write down, when they stop, which classes they loaded: see `hub.stack.warm_up`."""

    def own_folder(self, server: str, *inner: str) -> Path:
        """A folder of one server, made and handed to the servers' user when it is not there yet."""
        path = self.folder
        for name in (server, *inner):
            path /= name
            if not path.is_dir():
                path.mkdir()
                path.chmod(0o700)
                give_to(path, self.user)
        return path

    def write(self, path: Path, content: str) -> Path:
        """Write a configuration file that the servers' user can read."""
        path.write_text(content, encoding="utf-8")
        path.chmod(0o600)
        give_to(path, self.user)
        return path

    @property
    def java(self) -> str:
        return str(self.cache.java / "bin" / "java")

    def log_file(self, server: str) -> Path:
        return self.logs / f"{server}.log"

    def class_archive(self, program: str) -> tuple[str, ...]:
        """The option that makes a Java server start from the archive of its classes, or write one."""
        if self.records_classes:
            return (f"-XX:ArchiveClassesAtExit={self.own_folder(program) / 'classes.jsa'}",)
        archive = self.cache.class_archive(program)
        return (f"-XX:SharedArchiveFile={archive}",) if archive.is_file() and archive.stat().st_size else ()

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """A clean environment: nothing of the caller's shell reaches a server by accident."""
        return {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home)} | more


def server_parts(site: ServerSite) -> list[Part]:
    """The parts for every server of the profile that is ours, dependencies first."""
    makers = {"postgres": postgres, "kafka": kafka, "elasticsearch": elasticsearch, "zeebe": zeebe}
    state = site.state
    return [makers[name](site) for name in state.profile.servers if name not in state.existing]


def probe_for(server: str, address: str) -> Callable[[], Awaitable[bool]]:
    """The health question for a server that exists elsewhere. Its address is in the form of its `PAYHUB_*` variable."""

    async def asked() -> bool:
        if server == "postgres":
            return await database_answers(address)
        if server == "kafka":
            return await kafka_answers(address)
        if server == "elasticsearch":
            return await elasticsearch_answers(address)
        host, _, port = address.rpartition(":")
        return await is_listening(host or address, int(port or 26500))

    return asked


async def is_listening(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def answers_ok(url: str) -> bool:
    """Whether a GET is answered with 200."""
    # Loopback and the addresses one configures are reached directly, whatever proxy the shell speaks of.
    async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
        try:
            return (await client.get(url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgres(site: ServerSite) -> Part:
    """PostgreSQL with one database, `payhub`; its owner may create roles and databases but is no superuser."""
    state, port = site.state, site.state.ports["postgres"]
    bin_folder = site.cache.home("postgres") / "bin"
    superuser_url = plain_url(state.superuser_url or "")

    async def launch() -> Launch:
        home = site.own_folder("postgres")
        data = home / "data"
        environment = site.environment(home)
        if not (data / "PG_VERSION").exists():
            await _initialise_database(site, home, bin_folder, environment)
        _clear_stale_lock(data)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "96MB",
            "max_wal_size": "512MB",
            "fsync": "on",
            "synchronous_commit": "on",
            "io_method": "sync",
            "log_timezone": "UTC",
            # The details of an error hold values of the row it is about.
            "log_error_verbosity": "terse",
        }
        options = tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        return Launch((str(bin_folder / "postgres"), "-D", str(data), *options), environment, home, site.user)

    async def complete() -> None:
        await _create_database(superuser_url, state.owner_password.get_secret_value())

    return Part(
        name="postgres",
        kind="server",
        port=port,
        version=site.cache.lock.program("postgres").version,
        launch=launch,
        probe=lambda: database_answers(superuser_url.rsplit("/", 1)[0] + "/postgres"),
        complete=complete,
        stop_signal=signal.SIGINT,
        # An immediate shutdown: the server takes its sessions' processes with it, and replays its log when it is back.
        death_signal=signal.SIGQUIT,
        stop_seconds=20,
    )


def plain_url(sqlalchemy_url: str) -> str:
    """A database URL without SQLAlchemy's driver name."""
    return sqlalchemy_url.replace("postgresql+psycopg://", "postgresql://", 1)


async def database_answers(url: str) -> bool:
    """Whether the database of a URL (either form) answers a query."""
    try:
        async with await psycopg.AsyncConnection.connect(plain_url(url), connect_timeout=3) as connection:
            await connection.execute("select 1")
    except psycopg.Error:
        return False
    return True


async def _initialise_database(site: ServerSite, home: Path, bin_folder: Path, environment: Mapping[str, str]) -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        reason = f"cannot run as user number {os.geteuid()}, who has no name on this machine (see /etc/passwd)"
        raise PartFailed("postgres", reason, None, ()) from None
    # initdb wants an empty folder; one without PG_VERSION is what an interrupted attempt left.
    shutil.rmtree(home / "data", ignore_errors=True)
    password = site.write(home / "password", site.state.superuser_password.get_secret_value())
    try:
        arguments = (
            *(str(bin_folder / "initdb"), "-D", str(home / "data"), "-U", DATABASE_SUPERUSER, f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
        )
        await run_to_end("postgres", Launch(arguments, environment, home, site.user), site.log_file("postgres"))
    finally:
        password.unlink()


def _clear_stale_lock(data: Path) -> None:
    """Remove the lock file of a server that was killed, when its process number now belongs to somebody else.

    PostgreSQL does so itself unless a process with that number exists. The launcher holds the data folder, so whatever
    has the number is no server of this folder's, except one that is still ending: that one is left its file.
    """
    lock = data / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        pid = int(lock.read_text().splitlines()[0])
        try:
            command = psutil.Process(pid).cmdline()
        except psutil.NoSuchProcess:
            return
        except psutil.AccessDenied:
            command = []
        if str(data) not in command:
            lock.unlink()


async def _create_database(superuser_url: str, owner_password: str) -> None:
    administration = superuser_url.rsplit("/", 1)[0] + "/postgres"
    async with await psycopg.AsyncConnection.connect(administration, autocommit=True) as connection:
        role, database = sql.Identifier(DATABASE_OWNER), sql.Identifier(DATABASE)
        found = await connection.execute("select from pg_roles where rolname = %s", [DATABASE_OWNER])
        if await found.fetchone() is None:
            await connection.execute(
                sql.SQL("create role {} login createrole createdb password {}").format(
                    role, sql.Literal(owner_password)
                )
            )
        found = await connection.execute("select from pg_database where datname = %s", [DATABASE])
        if await found.fetchone() is None:
            await connection.execute(sql.SQL("create database {} owner {}").format(database, role))


# --- Kafka ------------------------------------------------------------------------------------------------------------


def kafka(site: ServerSite) -> Part:
    """One Kafka node that is broker and controller, with the topic of engine records."""
    state, port = site.state, site.state.ports["kafka"]
    address = state.address("kafka")
    controller = state.ports["kafka-controller"]

    async def launch() -> Launch:
        home = site.own_folder("kafka")
        data = site.own_folder("kafka", "data")
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            # After a kill, the node may not come back before its former self counts as gone.
            "broker.session.timeout.ms": "6000",
            "broker.heartbeat.interval.ms": "1500",
            # The views are made again from these records, however old: they are kept until somebody deletes them.
            "log.retention.ms": "-1",
            "message.max.bytes": str(_LARGEST_RECORD),
            "log.segment.bytes": str(128 * 2**20),
            "log.index.size.max.bytes": str(2**20),
            "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
            "num.network.threads": "2",
            "num.io.threads": "4",
            "background.threads": "4",
        }
        configuration = site.write(
            home / "server.properties", "".join(f"{name}={value}\n" for name, value in properties.items())
        )
        logging = site.write(
            home / "log4j.properties",
            "log4j.rootLogger=WARN, console\n"
            "log4j.logger.kafka.server.KafkaRaftServer=INFO\n"
            "log4j.appender.console=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.console.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.console.layout.ConversionPattern=%d %p %m (%c)%n\n",
        )
        java = (
            *(site.java, *_JVM, "-Xms64m", "-Xmx256m", f"-Djava.io.tmpdir={home}"),
            *(f"-Dlog4j.configuration=file:{logging}", "-cp", f"{site.cache.home('kafka')}/*"),
        )
        environment = site.environment(home)
        if not (data / "meta.properties").exists():
            arguments = (
                *(*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"),
                # One word each: a cluster id may begin with a hyphen, and would be read as the next option.
                *(f"--cluster-id={state.kafka_cluster_id}", f"--config={configuration}"),
            )
            await run_to_end("kafka", Launch(arguments, environment, home, site.user), site.log_file("kafka"))
        server = (*java, *site.class_archive("kafka"), "kafka.Kafka", str(configuration))
        return Launch(server, environment, home, site.user)

    return Part(
        name="kafka",
        kind="server",
        port=port,
        version=site.cache.lock.program("kafka").version,
        launch=launch,
        probe=lambda: kafka_answers(address),
        complete=lambda: create_topic(address),
        stop_seconds=20,
    )


async def kafka_answers(bootstrap_servers: str) -> bool:
    """Whether Kafka tells its topics."""
    host, _, port = bootstrap_servers.partition(",")[0].rpartition(":")
    # Asked before it listens, the client backs off for seconds.
    if not await is_listening(host, int(port)):
        return False

    def ask() -> bool:
        client = KafkaAdminClient(bootstrap_servers=bootstrap_servers.split(","), request_timeout_ms=3000)
        try:
            client.list_topics()
        finally:
            client.close()
        return True

    return await asyncio.to_thread(ask)


async def create_topic(bootstrap_servers: str) -> None:
    """Create the topic of engine records, unless it is there."""

    def create() -> None:
        client = KafkaAdminClient(bootstrap_servers=bootstrap_servers.split(","), request_timeout_ms=10_000)
        try:
            if RECORDS_TOPIC not in client.list_topics():
                with contextlib.suppress(TopicAlreadyExistsError):
                    client.create_topics({RECORDS_TOPIC: {"num_partitions": 1, "replication_factor": 1}})
        finally:
            client.close()

    await asyncio.to_thread(create)


# --- Elasticsearch ----------------------------------------------------------------------------------------------------


def elasticsearch(site: ServerSite) -> Part:
    """One Elasticsearch node without security; loopback is its fence."""
    port = site.state.ports["elasticsearch"]
    address = site.state.address("elasticsearch")
    program = site.cache.home("elasticsearch")

    async def launch() -> Launch:
        home = site.own_folder("elasticsearch")
        data, temporary = site.own_folder("elasticsearch", "data"), site.own_folder("elasticsearch", "tmp")
        configuration = site.own_folder("elasticsearch", "config")
        site.write(configuration / "log4j2.properties", _LOG4J2_PROPERTIES)
        settings = {
            "path.home": str(program),
            "path.data": str(data),
            "path.logs": str(home),
            "cluster.name": "payhub",
            "node.name": "payhub",
            "network.host": "127.0.0.1",
            "http.port": str(port),
            "transport.port": str(site.state.ports["elasticsearch-transport"]),
            "discovery.type": "single-node",
            "xpack.security.enabled": "false",
            "action.auto_create_index": "false",
            # Shares of a large, well-filled disk mean nothing here.
            "cluster.routing.allocation.disk.watermark.low": "1gb",
            "cluster.routing.allocation.disk.watermark.high": "500mb",
            "cluster.routing.allocation.disk.watermark.flood_stage": "250mb",
        }
        # What `bin/elasticsearch` would do in a second Java process, which it keeps: options, and settings on standard
        # input. The module path instead of a class path is what this version's main module requires.
        arguments = (
            *(
                site.java,
                *_JVM,
                *site.class_archive("elasticsearch"),
                "-Xms512m",
                "-Xmx512m",
                "-Xss1m",
                f"-Djava.io.tmpdir={temporary}",
            ),
            *("-Djava.security.manager=allow", "-Djna.nosys=true", "-XX:-OmitStackTraceInFastThrow"),
            *("-Des.networkaddress.cache.ttl=60", "-Des.networkaddress.cache.negative.ttl=10"),
            *("-Dio.netty.noUnsafe=true", "-Dio.netty.noKeySetOptimization=true"),
            *("-Dio.netty.recycler.maxCapacityPerThread=0", "-Dlog4j.shutdownHookEnabled=false"),
            *("-Dlog4j2.disable.jmx=true", "-Dlog4j2.formatMsgNoLookups=true", "-Djava.locale.providers=SPI,COMPAT"),
            *(f"-Des.path.home={program}", f"-Des.path.conf={configuration}", "-Des.distribution.type=zip"),
            *("--module-path", f"{program}/lib", "--add-modules=jdk.net"),
            *("-m", "org.elasticsearch.server/org.elasticsearch.bootstrap.Elasticsearch"),
        )
        environment = site.environment(home, LIBFFI_TMPDIR=str(temporary))
        return Launch(arguments, environment, home, site.user, elasticsearch_arguments(settings, configuration))

    return Part(
        name="elasticsearch",
        kind="server",
        port=port,
        version=site.cache.lock.program("elasticsearch").version,
        launch=launch,
        probe=lambda: elasticsearch_answers(address),
        stop_seconds=15,
    )


async def elasticsearch_answers(url: str) -> bool:
    """Whether the cluster is yellow or green."""
    return await answers_ok(f"{url.rstrip('/')}/_cluster/health?wait_for_status=yellow&timeout=2s")


def elasticsearch_arguments(settings: Mapping[str, str], configuration: Path) -> bytes:
    """The server's arguments as Elasticsearch 8.6 reads them from its standard input.

    In order: run in the background (no), be quiet (no), pid file (none), keystore password (empty), settings, folder of
    the configuration. Another version may read something else; the version is pinned.
    """

    def count(number: int) -> bytes:
        encoded = bytearray()
        while number > 0x7F:
            encoded.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes((*encoded, number))

    def text(value: str) -> bytes:
        # Counted and written by UTF-16 unit, as Java sees characters.
        units = value.encode("utf-16-be", "surrogatepass")
        characters = [chr(unit) for (unit,) in struct.iter_unpack(">H", units)]
        return count(len(characters)) + "".join(characters).encode("utf-8", "surrogatepass")

    any_text = b"\0"  # the mark of a text among values of any kind
    entries = b"".join(text(name) + any_text + text(value) for name, value in settings.items())
    return b"\0\0\0" + count(0) + count(len(settings)) + entries + text(str(configuration))


# --- Zeebe ------------------------------------------------------------------------------------------------------------


def zeebe(site: ServerSite) -> Part:
    """One Zeebe broker with one partition and the gateway inside; it exports to Kafka when Kafka is in the profile."""
    state, ports = site.state, site.state.ports
    program = site.cache.home("zeebe")
    exports = "kafka" in state.profile.servers

    async def launch() -> Launch:
        home = site.own_folder("zeebe")
        logging = site.write(home / "log4j2.xml", _LOG4J2)
        environment = site.environment(
            home,
            ZEEBE_BROKER_DATA_DIRECTORY=str(site.own_folder("zeebe", "data")),
            ZEEBE_BROKER_NETWORK_HOST="127.0.0.1",
            ZEEBE_BROKER_NETWORK_COMMANDAPI_PORT=str(ports["zeebe-command"]),
            ZEEBE_BROKER_NETWORK_INTERNALAPI_PORT=str(ports["zeebe-internal"]),
            ZEEBE_BROKER_GATEWAY_NETWORK_HOST="127.0.0.1",
            ZEEBE_BROKER_GATEWAY_NETWORK_PORT=str(ports["zeebe"]),
            SERVER_ADDRESS="127.0.0.1",
            SERVER_PORT=str(ports["zeebe-rest"]),
            MANAGEMENT_SERVER_ADDRESS="127.0.0.1",
            MANAGEMENT_SERVER_PORT=str(ports["zeebe-management"]),
            ZEEBE_BROKER_CLUSTER_PARTITIONSCOUNT="1",
            # One thread works a partition; a second one only spins, for a tenth of the broker's processor time.
            ZEEBE_BROKER_THREADS_CPUTHREADCOUNT="1",
            ZEEBE_BROKER_CLUSTER_RAFT_FLUSH_ENABLED="true",
            # After a crash, everything since the last snapshot is exported again.
            ZEEBE_BROKER_DATA_SNAPSHOTPERIOD="1m",
            ZEEBE_BROKER_DATA_LOGSEGMENTSIZE="16MB",
            ZEEBE_BROKER_DATA_DISK_FREESPACE_PROCESSING="512MB",
            ZEEBE_BROKER_DATA_DISK_FREESPACE_REPLICATION="256MB",
            ZEEBE_BROKER_EXPERIMENTAL_ROCKSDB_MEMORYLIMIT="128MB",
            **(_exporter(site) if exports else {}),
        )
        arguments = (
            *(site.java, *_JVM, *site.class_archive("zeebe"), "-Xms128m", "-Xmx512m", f"-Djava.io.tmpdir={home}"),
            *(f"-Dlog4j2.configurationFile={logging}", f"-Dlogging.config={logging}", "-Dlog4j2.disable.jmx=true"),
            *(f"-Dspring.config.additional-location=file:{program}/config/", "-Dspring.main.banner-mode=off"),
            *(f"-Dapp.home={home}", f"-Dbasedir={home}", "-Dapp.name=broker"),
            *("-cp", f"{program}/lib/*", "io.camunda.zeebe.broker.StandaloneBroker"),
        )
        return Launch(arguments, environment, home, site.user)

    management = f"http://127.0.0.1:{ports['zeebe-management']}"

    async def probe() -> bool:
        # `readiness` says that the broker started, `health` that its partition has a healthy leader.
        return (
            await answers_ok(f"{management}/actuator/health/readiness")
            and await answers_ok(f"{management}/actuator/health")
            and await is_listening("127.0.0.1", ports["zeebe"])
        )

    return Part(
        name="zeebe",
        kind="server",
        port=ports["zeebe"],
        version=site.cache.lock.program("zeebe").version,
        launch=launch,
        probe=probe,
        complete=(lambda: create_topic(state.address("kafka"))) if exports and "kafka" in state.existing else None,
        after=("kafka",) if exports else (),
        stop_seconds=30,
    )


def _exporter(site: ServerSite) -> dict[str, str]:
    """The environment that makes Zeebe send every event and every rejected command to Kafka."""
    (jar,) = site.cache.home("zeebe-kafka-exporter").glob("*.jar")
    exporter = "ZEEBE_BROKER_EXPORTERS_KAFKA"
    return {
        f"{exporter}_CLASSNAME": "io.zeebe.exporters.kafka.KafkaExporter",
        f"{exporter}_JARPATH": str(jar),
        f"{exporter}_ARGS_MAXBATCHSIZE": "500",
        f"{exporter}_ARGS_FLUSHINTERVALMS": "200",
        f"{exporter}_ARGS_PRODUCER_SERVERS": site.state.address("kafka"),
        # Its own default for the first number is of a type that the Kafka client refuses.
        f"{exporter}_ARGS_PRODUCER_CONFIG": f"batch.size=131072\nmax.request.size={_LARGEST_RECORD}",
        f"{exporter}_ARGS_RECORDS_DEFAULTS_TYPE": "event,rejection",
        f"{exporter}_ARGS_RECORDS_DEFAULTS_TOPIC": RECORDS_TOPIC,
    }
