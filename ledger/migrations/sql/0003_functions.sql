-- What an account held before an instant, on either date. Instants are exclusive: before midnight is the day that ended.
-- p_axis: 'booked' is when it was written here, 'effective' is the value date. Most transactions have both within a
-- minute of each other; the others are few and have an index of their own (txn_value_dated).
-- Questions about one account go from its sides to their transactions one by one, whatever the planner makes of the
-- numbers: that plan is right for all of them, and is made once.

CREATE FUNCTION ledger.is_value_dated(p_booked_at timestamptz, p_effective_at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_booked_at - p_effective_at NOT BETWEEN interval '-1 minute' AND interval '1 minute'
$$;

-- An account's sides within a span of time, in no order.
CREATE FUNCTION ledger.entries_between(p_account bigint, p_from timestamptz, p_before timestamptz, p_axis text)
RETURNS TABLE (txn_id bigint, seq bigint, side char(1), amount bigint, at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off
    SET max_parallel_workers_per_gather = 0 AS $$
DECLARE
    v_slack interval := CASE p_axis WHEN 'booked' THEN interval '0' ELSE interval '1 minute' END;
    v_low   bigint := 0;
    v_high  bigint;
BEGIN
    SELECT s.whole_to INTO v_low FROM ledger.snapshot s
     WHERE s.account_id = p_account AND s.as_of <= p_from - v_slack ORDER BY s.as_of DESC LIMIT 1;
    SELECT s.last_seq INTO v_high FROM ledger.snapshot s
     WHERE s.account_id = p_account AND s.as_of >= p_before + v_slack ORDER BY s.as_of LIMIT 1;
    v_low := coalesce(v_low, 0);
    v_high := coalesce(v_high, 9223372036854775807);
    IF p_axis = 'booked' THEN
        RETURN QUERY
        SELECT e.txn_id, e.seq, e.side, e.amount, t.booked_at
          FROM ledger.entry e JOIN ledger.txn t ON t.id = e.txn_id
         WHERE e.account_id = p_account AND e.seq > v_low AND e.seq <= v_high
           AND t.booked_at >= p_from AND t.booked_at < p_before;
    ELSE
        RETURN QUERY
        SELECT e.txn_id, e.seq, e.side, e.amount, t.effective_at
          FROM ledger.entry e JOIN ledger.txn t ON t.id = e.txn_id
         WHERE e.account_id = p_account AND e.seq > v_low AND e.seq <= v_high
           AND t.effective_at >= p_from AND t.effective_at < p_before
           AND NOT ledger.is_value_dated(t.booked_at, t.effective_at)
        UNION ALL
        SELECT o.id, e.seq, e.side, e.amount, o.effective_at
          FROM ledger.account a
          CROSS JOIN LATERAL (SELECT t.id, t.effective_at FROM ledger.txn t
                               WHERE t.book_id = a.book_id AND t.effective_at >= p_from AND t.effective_at < p_before
                                 AND ledger.is_value_dated(t.booked_at, t.effective_at) OFFSET 0) o
          CROSS JOIN LATERAL (SELECT * FROM ledger.entry e WHERE e.txn_id = o.id AND e.account_id = a.id OFFSET 0) e
         WHERE a.id = p_account;
    END IF;
END $$;

-- The value-dated transactions that sums by booking date before p_kept leave out of (+1), or have too much in (-1), the
-- sums by value date before p_before. Read from the index alone; the planner would think them many.
CREATE FUNCTION ledger.value_dated_around(p_book bigint, p_before timestamptz, p_kept timestamptz)
RETURNS TABLE (id bigint, way integer)
LANGUAGE plpgsql STABLE ROWS 100 SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
    SET max_parallel_workers_per_gather = 0 AS $$
BEGIN
    RETURN QUERY
    SELECT t.id, (t.effective_at < p_before)::integer - (t.booked_at < p_kept)::integer
      FROM ledger.txn t
     WHERE t.book_id = p_book AND ledger.is_value_dated(t.booked_at, t.effective_at)
       AND (t.effective_at < p_before) <> (t.booked_at < p_kept);
END $$;

-- The sums of an account's sides before an instant: a snapshot, and what came after it.
CREATE FUNCTION ledger.sums_before(
    p_account bigint, p_before timestamptz, p_axis text, OUT debits numeric, OUT credits numeric)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off
    SET max_parallel_workers_per_gather = 0 AS $$
DECLARE
    v_kept  record;
    v_since record;
    v_odd   record;
BEGIN
    SELECT s.as_of, s.debits, s.credits INTO v_kept FROM ledger.snapshot s
     WHERE s.account_id = p_account
       AND s.as_of <= p_before - CASE p_axis WHEN 'booked' THEN interval '0' ELSE interval '1 minute' END
     ORDER BY s.as_of DESC LIMIT 1;
    IF p_axis = 'booked' OR v_kept.as_of IS NULL THEN
        SELECT coalesce(sum(e.amount) FILTER (WHERE e.side = 'D'), 0) AS debits,
               coalesce(sum(e.amount) FILTER (WHERE e.side = 'C'), 0) AS credits INTO v_since
          FROM ledger.entries_between(p_account, coalesce(v_kept.as_of, '-infinity'), p_before, p_axis) e;
        debits := coalesce(v_kept.debits, 0) + v_since.debits;
        credits := coalesce(v_kept.credits, 0) + v_since.credits;
        RETURN;
    END IF;
    -- The snapshot is by booking date. Its sides near that instant are looked at one by one, and so are the value-dated.
    SELECT coalesce(sum(e.amount) FILTER (WHERE e.side = 'D'), 0) AS debits,
           coalesce(sum(e.amount) FILTER (WHERE e.side = 'C'), 0) AS credits INTO v_since
      FROM ledger.entries_between(p_account, v_kept.as_of, p_before + interval '1 minute', 'booked') e
      JOIN ledger.txn t ON t.id = e.txn_id
     WHERE t.effective_at < p_before AND NOT ledger.is_value_dated(t.booked_at, t.effective_at);
    SELECT coalesce(sum(e.amount * o.way) FILTER (WHERE e.side = 'D'), 0) AS debits,
           coalesce(sum(e.amount * o.way) FILTER (WHERE e.side = 'C'), 0) AS credits INTO v_odd
      FROM ledger.account a
      CROSS JOIN LATERAL ledger.value_dated_around(a.book_id, p_before, v_kept.as_of) o
      CROSS JOIN LATERAL (SELECT * FROM ledger.entry e WHERE e.txn_id = o.id AND e.account_id = a.id OFFSET 0) e
     WHERE a.id = p_account;
    debits := v_kept.debits + v_since.debits + v_odd.debits;
    credits := v_kept.credits + v_since.credits + v_odd.credits;
END $$;

-- The sums of a book's accounts by kind and currency before an instant; p_before NULL: now, from the balances.
CREATE FUNCTION ledger.trial_balance(p_book bigint, p_before timestamptz, p_axis text)
RETURNS TABLE (kind text, asset text, side char(1), accounts bigint, debits numeric, credits numeric)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_slack interval := CASE p_axis WHEN 'booked' THEN interval '0' ELSE interval '1 minute' END;
    v_kept  timestamptz;
BEGIN
    IF p_before IS NULL THEN
        RETURN QUERY
        SELECT a.kind, a.asset, a.side, count(*), sum(b.debits), sum(b.credits)
          FROM ledger.account a JOIN ledger.balance b ON b.account_id = a.id
         WHERE a.book_id = p_book GROUP BY a.kind, a.asset, a.side;
        RETURN;
    END IF;
    SELECT coalesce(max(r.as_of), '-infinity') INTO v_kept
      FROM ledger.snapshot_run r WHERE r.every AND r.as_of <= p_before - v_slack;
    RETURN QUERY
    WITH sums AS (
        SELECT s.account_id, s.debits::numeric, s.credits::numeric
          FROM ledger.account a
          CROSS JOIN LATERAL (SELECT * FROM ledger.snapshot s WHERE s.account_id = a.id AND s.as_of <= v_kept
                               ORDER BY s.as_of DESC LIMIT 1) s
         WHERE a.book_id = p_book
        UNION ALL
        SELECT u.account_id, u.debits, u.credits
          FROM ledger.txn t JOIN ledger.posting p ON p.txn_id = t.id
          CROSS JOIN LATERAL (VALUES (p.dr_account, p.amount, 0), (p.cr_account, 0, p.amount))
                          AS u (account_id, debits, credits)
         WHERE t.book_id = p_book AND t.booked_at >= v_kept AND t.booked_at < p_before + v_slack
           AND CASE p_axis WHEN 'booked' THEN true
               ELSE t.effective_at < p_before AND NOT ledger.is_value_dated(t.booked_at, t.effective_at) END
        UNION ALL
        SELECT u.account_id, u.debits * o.way, u.credits * o.way
          FROM ledger.value_dated_around(p_book, p_before, v_kept) o
          CROSS JOIN LATERAL (SELECT * FROM ledger.posting p WHERE p.txn_id = o.id OFFSET 0) p
          CROSS JOIN LATERAL (VALUES (p.dr_account, p.amount, 0), (p.cr_account, 0, p.amount))
                          AS u (account_id, debits, credits)
         WHERE p_axis <> 'booked')
    SELECT a.kind, a.asset, a.side, count(DISTINCT a.id), coalesce(sum(sums.debits), 0), coalesce(sum(sums.credits), 0)
      FROM ledger.account a LEFT JOIN sums ON sums.account_id = a.id
     WHERE a.book_id = p_book AND (a.opened_at < p_before OR sums.account_id IS NOT NULL)
     GROUP BY a.kind, a.asset, a.side;
END $$;

-- Keep the sums of all accounts that changed since their last snapshot, or only those of the books themselves.
-- Whoever calls this has made sure that nothing booked before p_as_of is still under way.
CREATE FUNCTION ledger.take_snapshots(p_as_of timestamptz, p_every boolean) RETURNS bigint
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_count bigint;
BEGIN
    INSERT INTO ledger.snapshot_run (as_of, every) VALUES (p_as_of, p_every) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO ledger.snapshot (account_id, as_of, debits, credits, whole_to, last_seq)
    SELECT b.account_id, p_as_of, coalesce(k.debits, 0) + n.debits, coalesce(k.credits, 0) + n.credits,
           coalesce(n.first_left_out - 1, n.last_seq), greatest(n.last_seq, k.last_seq)
      FROM ledger.balance b
      JOIN ledger.account a ON a.id = b.account_id
      LEFT JOIN LATERAL (SELECT * FROM ledger.snapshot s WHERE s.account_id = b.account_id AND s.as_of < p_as_of
                          ORDER BY s.as_of DESC LIMIT 1) k ON true
      CROSS JOIN LATERAL (
        SELECT coalesce(sum(e.amount) FILTER (WHERE e.side = 'D' AND t.booked_at < p_as_of), 0) AS debits,
               coalesce(sum(e.amount) FILTER (WHERE e.side = 'C' AND t.booked_at < p_as_of), 0) AS credits,
               max(e.seq) FILTER (WHERE t.booked_at < p_as_of) AS last_seq,
               min(e.seq) FILTER (WHERE t.booked_at >= p_as_of) AS first_left_out
          FROM ledger.entry e JOIN ledger.txn t ON t.id = e.txn_id
         WHERE e.account_id = b.account_id AND e.seq > coalesce(k.whole_to, 0)
           AND t.booked_at >= coalesce(k.as_of, '-infinity')) n
     WHERE b.ver > coalesce(k.whole_to, 0) AND (p_every OR a.owner_type = 'book') AND n.last_seq IS NOT NULL;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
