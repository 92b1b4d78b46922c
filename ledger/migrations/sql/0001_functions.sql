-- The verbs of the book. Each is one call, hence one round trip and one transaction, and answers a row: a refusal, or the
-- transaction it wrote or had written before.
--
-- Three rules keep every function free of half-done work and of deadlocks:
--   1. decide, then write: a refusal is returned before the first write;
--   2. lock in one order: hold_state, then balances of customers by account id, then the operation's key in txn, then
--      balances of the book's own accounts by account id (nearly every payment touches those: last and shortly);
--   3. look for the earlier answer only while holding the locks, so that two calls of one operation cannot pass each other.

CREATE TYPE ledger.answer AS (refusal text, detail text, txn_id bigint, booked_at timestamptz, replayed boolean);

CREATE FUNCTION ledger.refused(p_refusal text, p_detail text) RETURNS ledger.answer LANGUAGE sql IMMUTABLE AS $$
    SELECT p_refusal, p_detail, NULL::bigint, NULL::timestamptz, false
$$;

CREATE FUNCTION ledger.owner_of(p_address text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN strpos(p_address, ':') = 0 THEN '' ELSE substr(p_address, strpos(p_address, ':') + 1) END
$$;
COMMENT ON FUNCTION ledger.owner_of IS 'An address is kind:owner, as in customer-deposit:A-17, or only the kind for an account of the book itself.';

-- The answer this operation was given before, or NULLs. The same operation with other input is refused.
CREATE FUNCTION ledger.earlier(p_book_id bigint, p_operation text, p_hash bytea) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_txn record;
BEGIN
    SELECT t.id, t.booked_at, t.idem_hash INTO v_txn
      FROM ledger.txn t WHERE t.book_id = p_book_id AND t.idem_key = p_operation;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF v_txn.idem_hash = p_hash THEN
        RETURN ROW(NULL, NULL, v_txn.id, v_txn.booked_at, true)::ledger.answer;
    END IF;
    RETURN ROW('duplicate-operation', p_operation, v_txn.id, v_txn.booked_at, false)::ledger.answer;
END $$;

-- An account by address; an account of the book itself is opened on first use where the chart says so.
CREATE FUNCTION ledger.find_account(
    p_book_id bigint, p_address text, p_asset text, OUT account_id bigint, OUT shared boolean, OUT refusal text)
LANGUAGE plpgsql AS $$
DECLARE
    v_kind  text := split_part(p_address, ':', 1);
    v_owner text := ledger.owner_of(p_address);
BEGIN
    SELECT a.id, a.owner_type = 'book' INTO account_id, shared FROM ledger.account a
     WHERE a.book_id = p_book_id AND a.kind = v_kind AND a.owner_id = v_owner AND a.asset = p_asset AND a.shard = 0;
    IF FOUND THEN
        RETURN;
    END IF;
    IF v_owner = '' THEN
        INSERT INTO ledger.account (book_id, kind, owner_type, owner_id, asset, side)
        SELECT c.book_id, c.kind, 'book', '', s.code, c.side
          FROM ledger.chart c JOIN ledger.asset s ON s.code = p_asset
         WHERE c.book_id = p_book_id AND c.kind = v_kind AND c.auto_create
            ON CONFLICT DO NOTHING;
        INSERT INTO ledger.balance (account_id, side, floor)
        SELECT a.id, a.side, c.floor_default
          FROM ledger.account a JOIN ledger.chart c ON c.book_id = a.book_id AND c.kind = a.kind
         WHERE a.book_id = p_book_id AND a.kind = v_kind AND a.owner_id = '' AND a.asset = p_asset
            ON CONFLICT DO NOTHING;
        SELECT a.id, true INTO account_id, shared FROM ledger.account a
         WHERE a.book_id = p_book_id AND a.kind = v_kind AND a.owner_id = '' AND a.asset = p_asset AND a.shard = 0;
    END IF;
    IF account_id IS NULL THEN
        PERFORM 1 FROM ledger.account a WHERE a.book_id = p_book_id AND a.kind = v_kind AND a.owner_id = v_owner;
        refusal := CASE WHEN FOUND THEN 'currency-mismatch' ELSE 'account-unknown' END;
    END IF;
END $$;

-- Open the account of an owner. Opening it again changes nothing.
CREATE FUNCTION ledger.open_account(
    p_book text, p_kind text, p_owner_type text, p_owner text, p_asset text, OUT account_id bigint, OUT created boolean)
LANGUAGE plpgsql AS $$
DECLARE
    v_chart record;
BEGIN
    SELECT c.* INTO STRICT v_chart
      FROM ledger.book k JOIN ledger.chart c ON c.book_id = k.id WHERE k.code = p_book AND c.kind = p_kind;
    INSERT INTO ledger.account (book_id, kind, owner_type, owner_id, asset, side)
    VALUES (v_chart.book_id, p_kind, p_owner_type, p_owner, p_asset, v_chart.side)
        ON CONFLICT DO NOTHING RETURNING id INTO account_id;
    created := FOUND;
    IF created THEN
        INSERT INTO ledger.balance (account_id, side, floor) VALUES (account_id, v_chart.side, v_chart.floor_default);
    ELSE
        SELECT a.id INTO account_id FROM ledger.account a
         WHERE a.book_id = v_chart.book_id AND a.kind = p_kind AND a.owner_id = p_owner AND a.asset = p_asset
           AND a.owner_type = p_owner_type AND a.shard = 0;
    END IF;
END $$;

-- Move a balance and tell the sequence and the balance after.
CREATE FUNCTION ledger.move(
    p_account bigint, p_debit bigint, p_credit bigint, p_sides bigint, p_freed bigint, OUT seq bigint, OUT after bigint)
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.balance b
       SET debits = b.debits + p_debit, credits = b.credits + p_credit, ver = b.ver + p_sides,
           hold_out = b.hold_out - p_freed
     WHERE b.account_id = p_account
     RETURNING b.ver, CASE b.side WHEN 'C' THEN b.credits - b.debits ELSE b.debits - b.credits END INTO seq, after;
END $$;

-- Several postings in one transaction: all or none. Arrays run in parallel, one element per leg.
CREATE FUNCTION ledger.post(
    p_book text, p_operation text, p_kind text, p_debits text[], p_credits text[], p_assets text[], p_amounts bigint[],
    p_reference text, p_reason text, p_effective_at timestamptz, p_actor text, p_meta jsonb) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_hash    bytea := sha256(convert_to(jsonb_build_array(p_kind, p_debits, p_credits, p_assets, p_amounts, p_reference,
                                                           p_reason, p_effective_at, p_meta)::text, 'UTF8'));
    v_legs    integer := cardinality(p_amounts);
    v_book    bigint;
    v_found   record;
    v_state   record;
    v_answer  ledger.answer;
    v_problem ledger.answer;
    v_ids     bigint[] := '{}';  -- the distinct accounts ...
    v_shared  boolean[] := '{}'; -- ... and, in parallel: of the book itself?
    v_debit   bigint[] := '{}';  -- sum of debits
    v_credit  bigint[] := '{}';  -- sum of credits
    v_sides   bigint[] := '{}';  -- posting sides
    v_seq     bigint[] := '{}';  -- running sequence
    v_after   bigint[] := '{}';  -- running balance
    v_sign    bigint[] := '{}';  -- +1 where a credit raises the balance
    v_at      integer[][] := '{}'; -- per leg: place of the debit and of the credit account in the arrays above
    v_place   integer;
    v_dr      integer;
    v_cr      integer;
BEGIN
    SELECT k.id INTO v_book FROM ledger.book k WHERE k.code = p_book;
    IF NOT FOUND THEN
        RETURN ledger.refused('account-unknown', 'book');
    END IF;
    FOR i IN 1 .. v_legs LOOP
        FOR s IN 1 .. 2 LOOP
            SELECT f.* INTO v_found
              FROM ledger.find_account(v_book, CASE s WHEN 1 THEN p_debits[i] ELSE p_credits[i] END, p_assets[i]) f;
            IF v_found.refusal IS NOT NULL THEN
                v_answer := ledger.earlier(v_book, p_operation, v_hash);
                IF v_answer.txn_id IS NULL THEN
                    v_answer := ledger.refused(v_found.refusal, CASE s WHEN 1 THEN 'debit' ELSE 'credit' END);
                END IF;
                RETURN v_answer;
            END IF;
            v_place := array_position(v_ids, v_found.account_id);
            IF v_place IS NULL THEN
                v_ids := v_ids || v_found.account_id;
                v_place := cardinality(v_ids);
                v_shared[v_place] := v_found.shared;
                v_debit[v_place] := 0;
                v_credit[v_place] := 0;
                v_sides[v_place] := 0;
            END IF;
            IF s = 1 THEN
                v_debit[v_place] := v_debit[v_place] + p_amounts[i];
                v_dr := v_place;
            ELSE
                v_credit[v_place] := v_credit[v_place] + p_amounts[i];
                v_cr := v_place;
            END IF;
            v_sides[v_place] := v_sides[v_place] + 1;
        END LOOP;
        IF v_dr = v_cr THEN
            RETURN ledger.refused('same-account', NULL);
        END IF;
        v_at := v_at || ARRAY[ARRAY[v_dr, v_cr]];
    END LOOP;

    PERFORM 1 FROM ledger.balance b
      WHERE b.account_id IN (SELECT u.id FROM unnest(v_ids, v_shared) AS u (id, shared) WHERE NOT u.shared)
      ORDER BY b.account_id FOR NO KEY UPDATE;
    v_answer := ledger.earlier(v_book, p_operation, v_hash);
    IF v_answer.txn_id IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    FOR v_state IN SELECT b.*, array_position(v_ids, b.account_id) AS place
                     FROM ledger.balance b WHERE b.account_id = ANY (v_ids) ORDER BY b.account_id LOOP
        v_place := v_state.place;
        v_sign[v_place] := CASE v_state.side WHEN 'C' THEN 1 ELSE -1 END;
        IF v_state.closed THEN
            v_problem := ledger.refused('account-closed', CASE WHEN v_debit[v_place] > 0 THEN 'debit' ELSE 'credit' END);
        ELSIF v_state.debits_frozen AND v_debit[v_place] > 0 THEN
            v_problem := ledger.refused('account-frozen', 'debit');
        ELSIF v_state.credits_frozen AND v_credit[v_place] > 0 THEN
            v_problem := ledger.refused('account-frozen', 'credit');
        ELSIF v_state.floor IS NOT NULL AND NOT v_shared[v_place]
            AND v_sign[v_place] * (v_credit[v_place]::numeric - v_debit[v_place]) < 0
            AND v_sign[v_place] * (v_state.credits::numeric - v_state.debits + v_credit[v_place] - v_debit[v_place])
                - v_state.hold_out < v_state.floor THEN
            v_problem := ledger.refused('insufficient-funds', CASE v_state.side WHEN 'C' THEN 'debit' ELSE 'credit' END);
        END IF;
        IF v_problem.refusal IS NOT NULL THEN
            RETURN v_problem;
        END IF;
    END LOOP;

    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, reason_code, ext_ref, effective_at, actor, meta)
    VALUES (v_book, p_operation, v_hash, p_kind, p_reason, p_reference, coalesce(p_effective_at, clock_timestamp()),
            p_actor, p_meta)
        ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
    IF NOT FOUND THEN
        RETURN ledger.earlier(v_book, p_operation, v_hash);
    END IF;
    INSERT INTO ledger.outbox (topic, key, txn_id) VALUES ('ledger.' || p_kind, coalesce(p_reference, p_operation), v_answer.txn_id);
    FOR v_place IN SELECT u.place FROM unnest(v_ids, v_shared) WITH ORDINALITY AS u (id, shared, place)
                    ORDER BY u.shared, u.id LOOP
        -- A floor of an account of the book itself is kept by the table's own check.
        SELECT m.* INTO v_found
          FROM ledger.move(v_ids[v_place], v_debit[v_place], v_credit[v_place], v_sides[v_place], 0) m;
        v_seq[v_place] := v_found.seq - v_sides[v_place];
        v_after[v_place] := v_found.after - v_sign[v_place] * (v_credit[v_place] - v_debit[v_place]);
    END LOOP;
    FOR i IN 1 .. v_legs LOOP
        v_dr := v_at[i][1];
        v_cr := v_at[i][2];
        v_seq[v_dr] := v_seq[v_dr] + 1;
        v_seq[v_cr] := v_seq[v_cr] + 1;
        v_after[v_dr] := v_after[v_dr] - v_sign[v_dr] * p_amounts[i];
        v_after[v_cr] := v_after[v_cr] + v_sign[v_cr] * p_amounts[i];
        INSERT INTO ledger.posting (txn_id, leg, dr_account, cr_account, asset, amount, dr_seq, dr_after, cr_seq, cr_after)
        VALUES (v_answer.txn_id, i, v_ids[v_dr], v_ids[v_cr], p_assets[i], p_amounts[i], v_seq[v_dr], v_after[v_dr],
                v_seq[v_cr], v_after[v_cr]);
    END LOOP;
    v_answer.replayed := false;
    RETURN v_answer;
END $$;

-- Set money of an account aside. p_amount includes p_fee. p_lifetime NULL: until captured or released, never by time.
CREATE FUNCTION ledger.place_hold(
    p_book text, p_operation text, p_account text, p_asset text, p_amount bigint, p_fee bigint, p_lifetime interval,
    p_reference text, p_actor text) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_hash   bytea := sha256(convert_to(jsonb_build_array('hold', p_account, p_asset, p_amount, p_fee, p_lifetime,
                                                          p_reference)::text, 'UTF8'));
    v_book   bigint;
    v_from   record;
    v_answer ledger.answer;
    v_until  timestamptz := clock_timestamp() + p_lifetime;
BEGIN
    -- Apart, so that the account is always looked for inside the book, however few books there are when plans are made.
    SELECT k.id INTO v_book FROM ledger.book k WHERE k.code = p_book;
    SELECT b.* INTO v_from
      FROM ledger.account a JOIN ledger.balance b ON b.account_id = a.id
     WHERE a.book_id = v_book AND a.kind = split_part(p_account, ':', 1) AND a.owner_id = ledger.owner_of(p_account)
       AND a.asset = p_asset AND a.shard = 0
       FOR NO KEY UPDATE OF b;
    IF NOT FOUND THEN
        v_answer := ledger.earlier(v_book, p_operation, v_hash);
        IF v_answer.txn_id IS NULL THEN
            v_answer := ledger.refused((ledger.find_account(v_book, p_account, p_asset)).refusal, 'debit');
        END IF;
        RETURN v_answer;
    END IF;
    v_answer := ledger.earlier(v_book, p_operation, v_hash);
    IF v_answer.txn_id IS NOT NULL THEN
        RETURN v_answer;
    ELSIF v_from.side <> 'C' THEN
        RAISE EXCEPTION 'holds are placed on credit-side accounts' USING ERRCODE = 'invalid_parameter_value';
    ELSIF v_from.closed THEN
        RETURN ledger.refused('account-closed', 'debit');
    ELSIF v_from.debits_frozen THEN
        RETURN ledger.refused('account-frozen', 'debit');
    ELSIF v_from.floor IS NOT NULL
        AND v_from.credits::numeric - v_from.debits - v_from.hold_out - p_amount < v_from.floor THEN
        RETURN ledger.refused('insufficient-funds', 'debit');
    END IF;

    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor)
    VALUES (v_book, p_operation, v_hash, 'hold', p_reference, p_actor)
        ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
    IF NOT FOUND THEN
        RETURN ledger.earlier(v_book, p_operation, v_hash);
    END IF;
    UPDATE ledger.balance SET hold_out = hold_out + p_amount WHERE account_id = v_from.account_id;
    INSERT INTO ledger.hold (id, from_account, asset, amount, fee, expires_at)
    VALUES (v_answer.txn_id, v_from.account_id, p_asset, p_amount, p_fee, v_until);
    INSERT INTO ledger.hold_state (hold_id, from_account, amount, expires_at)
    VALUES (v_answer.txn_id, v_from.account_id, p_amount, v_until);
    INSERT INTO ledger.outbox (topic, key, txn_id) VALUES ('ledger.hold', coalesce(p_reference, p_operation), v_answer.txn_id);
    v_answer.replayed := false;
    RETURN v_answer;
END $$;

-- Pay out a hold: the principal to p_to, the fee to fee income, in one transaction. Once only.
-- A payer frozen or closed after the hold does not stop it: the hold was the bank's promise.
CREATE FUNCTION ledger.capture_hold(p_book text, p_hold_operation text, p_operation text, p_to text, p_actor text)
RETURNS ledger.answer LANGUAGE plpgsql AS $$
DECLARE
    v_hash        bytea := sha256(convert_to(jsonb_build_array('capture', p_hold_operation, p_to)::text, 'UTF8'));
    v_hold        record;
    v_to          record;
    v_state       record;
    v_answer      ledger.answer;
    v_refusal     text;
    v_fee_account bigint;
    v_payer_seq   bigint;
    v_payer_after bigint;
    v_to_seq      bigint;
    v_to_after    bigint;
    v_fee_seq     bigint;
    v_fee_after   bigint;
BEGIN
    SELECT h.id, h.from_account, h.asset, h.amount, h.fee, s.final, s.captured, s.expires_at, t.book_id, t.ext_ref
      INTO v_hold
      FROM ledger.book k
      JOIN ledger.txn t ON t.book_id = k.id AND t.idem_key = p_hold_operation
      JOIN ledger.hold h ON h.id = t.id
      JOIN ledger.hold_state s ON s.hold_id = h.id
     WHERE k.code = p_book
       FOR NO KEY UPDATE OF s;
    IF NOT FOUND THEN
        RETURN ledger.refused('hold-unknown', p_hold_operation);
    END IF;
    v_answer := ledger.earlier(v_hold.book_id, p_operation, v_hash);
    IF v_answer.txn_id IS NOT NULL THEN
        RETURN v_answer;
    ELSIF v_hold.final THEN
        RETURN ledger.refused('hold-final', CASE WHEN v_hold.captured > 0 THEN 'captured' ELSE 'released' END);
    ELSIF v_hold.expires_at <= clock_timestamp() THEN
        RETURN ledger.refused('hold-expired', p_hold_operation);
    END IF;
    SELECT f.* INTO v_to FROM ledger.find_account(v_hold.book_id, p_to, v_hold.asset) f;
    IF v_to.refusal IS NOT NULL THEN
        RETURN ledger.refused(v_to.refusal, 'credit');
    ELSIF v_to.account_id = v_hold.from_account THEN
        RETURN ledger.refused('same-account', NULL);
    END IF;
    IF v_hold.fee > 0 THEN
        SELECT f.account_id, f.refusal INTO v_fee_account, v_refusal
          FROM ledger.find_account(v_hold.book_id, 'fee-income', v_hold.asset) f;
        IF v_refusal IS NOT NULL THEN
            RETURN ledger.refused(v_refusal, 'fee-income');
        ELSIF v_fee_account = v_to.account_id THEN
            RETURN ledger.refused('same-account', 'fee-income');
        END IF;
    END IF;
    PERFORM 1 FROM ledger.balance b
      WHERE b.account_id IN (v_hold.from_account, CASE WHEN v_to.shared THEN v_hold.from_account ELSE v_to.account_id END)
      ORDER BY b.account_id FOR NO KEY UPDATE;
    SELECT b.closed, b.credits_frozen INTO v_state FROM ledger.balance b WHERE b.account_id = v_to.account_id;
    IF v_state.closed THEN
        RETURN ledger.refused('account-closed', 'credit');
    ELSIF v_state.credits_frozen THEN
        RETURN ledger.refused('account-frozen', 'credit');
    END IF;

    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor, hold_id)
    VALUES (v_hold.book_id, p_operation, v_hash, 'capture', v_hold.ext_ref, p_actor, v_hold.id)
        ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
    IF NOT FOUND THEN
        RETURN ledger.earlier(v_hold.book_id, p_operation, v_hash);
    END IF;
    UPDATE ledger.hold_state SET captured = v_hold.amount WHERE hold_id = v_hold.id;
    INSERT INTO ledger.outbox (topic, key, txn_id)
    VALUES ('ledger.capture', coalesce(v_hold.ext_ref, p_operation), v_answer.txn_id);
    SELECT m.seq, m.after INTO v_payer_seq, v_payer_after
      FROM ledger.move(v_hold.from_account, v_hold.amount, 0, CASE WHEN v_hold.fee > 0 THEN 2 ELSE 1 END, v_hold.amount) m;
    IF v_hold.fee > 0 AND v_to.shared AND v_fee_account < v_to.account_id THEN
        SELECT m.seq, m.after INTO v_fee_seq, v_fee_after FROM ledger.move(v_fee_account, 0, v_hold.fee, 1, 0) m;
    END IF;
    SELECT m.seq, m.after INTO v_to_seq, v_to_after FROM ledger.move(v_to.account_id, 0, v_hold.amount - v_hold.fee, 1, 0) m;
    IF v_hold.fee > 0 AND v_fee_seq IS NULL THEN
        SELECT m.seq, m.after INTO v_fee_seq, v_fee_after FROM ledger.move(v_fee_account, 0, v_hold.fee, 1, 0) m;
    END IF;
    INSERT INTO ledger.posting (txn_id, leg, dr_account, cr_account, asset, amount, dr_seq, dr_after, cr_seq, cr_after)
    SELECT v_answer.txn_id, 1, v_hold.from_account, v_to.account_id, v_hold.asset, v_hold.amount - v_hold.fee,
           v_payer_seq - CASE WHEN v_hold.fee > 0 THEN 1 ELSE 0 END, v_payer_after + v_hold.fee, v_to_seq, v_to_after
    UNION ALL
    SELECT v_answer.txn_id, 2, v_hold.from_account, v_fee_account, v_hold.asset, v_hold.fee,
           v_payer_seq, v_payer_after, v_fee_seq, v_fee_after
     WHERE v_hold.fee > 0;
    v_answer.replayed := false;
    RETURN v_answer;
END $$;

-- Free a hold without paying. Once only.
CREATE FUNCTION ledger.release_hold(p_book text, p_hold_operation text, p_operation text, p_actor text)
RETURNS ledger.answer LANGUAGE plpgsql AS $$
DECLARE
    v_hash   bytea := sha256(convert_to(jsonb_build_array('void', p_hold_operation)::text, 'UTF8'));
    v_hold   record;
    v_answer ledger.answer;
BEGIN
    SELECT s.*, t.book_id, t.ext_ref INTO v_hold
      FROM ledger.book k
      JOIN ledger.txn t ON t.book_id = k.id AND t.idem_key = p_hold_operation
      JOIN ledger.hold_state s ON s.hold_id = t.id
     WHERE k.code = p_book
       FOR NO KEY UPDATE OF s;
    IF NOT FOUND THEN
        RETURN ledger.refused('hold-unknown', p_hold_operation);
    END IF;
    PERFORM 1 FROM ledger.balance b WHERE b.account_id = v_hold.from_account FOR NO KEY UPDATE;
    v_answer := ledger.earlier(v_hold.book_id, p_operation, v_hash);
    IF v_answer.txn_id IS NOT NULL THEN
        RETURN v_answer;
    ELSIF v_hold.final THEN
        RETURN ledger.refused('hold-final', CASE WHEN v_hold.captured > 0 THEN 'captured' ELSE 'released' END);
    END IF;
    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor, hold_id)
    VALUES (v_hold.book_id, p_operation, v_hash, 'void', v_hold.ext_ref, p_actor, v_hold.hold_id)
        ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
    IF NOT FOUND THEN
        RETURN ledger.earlier(v_hold.book_id, p_operation, v_hash);
    END IF;
    UPDATE ledger.hold_state SET released = amount - captured WHERE hold_id = v_hold.hold_id;
    UPDATE ledger.balance SET hold_out = hold_out - (v_hold.amount - v_hold.captured)
     WHERE account_id = v_hold.from_account;
    INSERT INTO ledger.outbox (topic, key, txn_id)
    VALUES ('ledger.void', coalesce(v_hold.ext_ref, p_operation), v_answer.txn_id);
    v_answer.replayed := false;
    RETURN v_answer;
END $$;

-- Free the holds whose time has run out, at most p_limit of them, and tell how many. Holds without a time are never taken.
CREATE FUNCTION ledger.expire_holds(p_limit integer, p_actor text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_hold  record;
    v_txn   bigint;
    v_count integer := 0;
BEGIN
    FOR v_hold IN
        WITH due AS (
            SELECT s.hold_id, s.from_account, s.amount, s.captured FROM ledger.hold_state s
             WHERE NOT s.final AND s.expires_at <= clock_timestamp()
             ORDER BY s.expires_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED)
        SELECT d.*, t.book_id, t.ext_ref FROM due d JOIN ledger.txn t ON t.id = d.hold_id
         ORDER BY d.from_account, d.hold_id
    LOOP
        UPDATE ledger.balance SET hold_out = hold_out - (v_hold.amount - v_hold.captured)
         WHERE account_id = v_hold.from_account;
        UPDATE ledger.hold_state SET released = amount - captured WHERE hold_id = v_hold.hold_id;
        INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor, hold_id)
        VALUES (v_hold.book_id, 'expire:' || v_hold.hold_id,
                sha256(convert_to(jsonb_build_array('expire', v_hold.hold_id)::text, 'UTF8')),
                'expire', v_hold.ext_ref, p_actor, v_hold.hold_id)
        RETURNING id INTO v_txn;
        INSERT INTO ledger.outbox (topic, key, txn_id)
        VALUES ('ledger.expire', coalesce(v_hold.ext_ref, v_hold.hold_id::text), v_txn);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;

-- Freeze, close or bound an account. The event is the truth, the flag in balance follows it.
CREATE FUNCTION ledger.set_policy(
    p_book text, p_account text, p_asset text, p_action text, p_floor bigint, p_actor text, p_reason text)
RETURNS ledger.answer LANGUAGE plpgsql AS $$
DECLARE
    v_book  bigint;
    v_found record;
    v_event record;
BEGIN
    SELECT k.id INTO v_book FROM ledger.book k WHERE k.code = p_book;
    SELECT f.* INTO v_found FROM ledger.find_account(v_book, p_account, p_asset) f;
    IF v_found.refusal IS NOT NULL THEN
        RETURN ledger.refused(v_found.refusal, 'account');
    END IF;
    UPDATE ledger.balance SET
        floor          = CASE WHEN p_action = 'floor' THEN p_floor ELSE floor END,
        debits_frozen  = CASE p_action WHEN 'freeze-debits' THEN true WHEN 'unfreeze-debits' THEN false ELSE debits_frozen END,
        credits_frozen = CASE p_action WHEN 'freeze-credits' THEN true WHEN 'unfreeze-credits' THEN false ELSE credits_frozen END,
        closed         = CASE p_action WHEN 'close' THEN true WHEN 'reopen' THEN false ELSE closed END
     WHERE account_id = v_found.account_id;
    INSERT INTO ledger.account_policy_event (account_id, action, floor, actor, reason)
    VALUES (v_found.account_id, p_action, p_floor, p_actor, p_reason) RETURNING id, booked_at INTO v_event;
    RETURN ROW(NULL, NULL, v_event.id, v_event.booked_at, false)::ledger.answer;
END $$;

-- A band's fee: fixed part plus share, rounded half to even, within its bounds (numeric: a share of 2^63 overflows bigint).
CREATE FUNCTION ledger.fee_of(
    p_amount bigint, p_fixed bigint, p_basis_points integer, p_min bigint, p_max bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT least(p_max, greatest(p_min, p_fixed + s.whole
               + CASE WHEN s.rest * 2 > 10000 OR (s.rest * 2 = 10000 AND mod(s.whole, 2) = 1) THEN 1 ELSE 0 END))
      FROM (SELECT div(p_amount::numeric * p_basis_points, 10000) AS whole,
                   mod(p_amount::numeric * p_basis_points, 10000) AS rest) s
$$;

-- Everything a payment needs to know before money is set aside: the parties' accounts and the fee, or why not.
-- p_routable: a payee who has no account here can be reached over a rail.
CREATE FUNCTION ledger.quote(
    p_book text, p_payer_type text, p_payer text, p_payee_type text, p_payee text, p_asset text, p_amount bigint,
    p_routable boolean,
    OUT refusal text, OUT detail text, OUT payer_account text, OUT payee_account text, OUT fee bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_book   bigint;
    v_payer  record;
    v_payee  record;
    v_tariff bigint;
    v_fee    numeric := 0;
BEGIN
    SELECT k.id INTO v_book FROM ledger.book k WHERE k.code = p_book;
    SELECT a.id, a.owner_id, a.asset, b.closed, b.debits_frozen INTO v_payer
      FROM ledger.account_identifier i
      JOIN ledger.account a ON a.id = i.account_id AND a.kind = 'customer-deposit'
      JOIN ledger.balance b ON b.account_id = a.id
     WHERE i.book_id = v_book AND i.id_type = p_payer_type AND i.identifier = p_payer;
    SELECT a.id, a.owner_id, a.asset, b.closed, b.credits_frozen INTO v_payee
      FROM ledger.account_identifier i
      JOIN ledger.account a ON a.id = i.account_id AND a.kind = 'customer-deposit'
      JOIN ledger.balance b ON b.account_id = a.id
     WHERE i.book_id = v_book AND i.id_type = p_payee_type AND i.identifier = p_payee;
    payer_account := v_payer.owner_id;
    payee_account := v_payee.owner_id;
    CASE
        WHEN v_payer.id IS NULL THEN refusal := 'account-unknown'; detail := 'payer';
        WHEN v_payer.closed THEN refusal := 'account-closed'; detail := 'payer';
        WHEN v_payer.debits_frozen THEN refusal := 'account-frozen'; detail := 'payer';
        WHEN v_payer.asset <> p_asset THEN refusal := 'currency-mismatch'; detail := 'payer';
        WHEN v_payee.id IS NULL AND NOT p_routable THEN refusal := 'account-unknown'; detail := 'payee';
        WHEN v_payee.id = v_payer.id THEN refusal := 'same-account';
        WHEN v_payee.closed THEN refusal := 'account-closed'; detail := 'payee';
        WHEN v_payee.credits_frozen THEN refusal := 'account-frozen'; detail := 'payee';
        WHEN v_payee.asset <> p_asset THEN refusal := 'currency-mismatch'; detail := 'payee';
        ELSE NULL;
    END CASE;
    IF refusal IS NOT NULL THEN
        RETURN;
    END IF;
    SELECT t.id INTO v_tariff FROM ledger.tariff t
     WHERE t.book_id = v_book AND t.asset = p_asset AND t.valid_from <= clock_timestamp() ORDER BY t.id DESC LIMIT 1;
    IF FOUND THEN
        SELECT ledger.fee_of(p_amount, b.fixed, b.basis_points, b.min_fee, b.max_fee) INTO v_fee
          FROM ledger.tariff_band b
         WHERE b.tariff_id = v_tariff AND b.from_amount <= p_amount AND (b.to_amount IS NULL OR b.to_amount >= p_amount)
         ORDER BY b.from_amount DESC LIMIT 1;
        IF NOT FOUND THEN
            refusal := 'amount-not-allowed';
            RETURN;
        END IF;
    END IF;
    IF v_fee + p_amount > 9223372036854775807 THEN
        refusal := 'amount-not-allowed';
        RETURN;
    END IF;
    fee := v_fee;
END $$;
