-- The verbs of the book, second edition: reversals, conditions, partial captures, renewals, batches. The three rules of the
-- first edition hold: decide, then write; lock in one order (hold_state, customers' balances by account id, the operation's
-- key, the book's own balances by account id); look for the earlier answer only while holding the locks.

-- An account by address, as it stands: nothing is opened.
CREATE FUNCTION ledger.account_at(
    p_book_id bigint, p_address text, p_asset text, OUT account_id bigint, OUT shared boolean, OUT refusal text)
LANGUAGE plpgsql AS $$
DECLARE
    v_kind  text := split_part(p_address, ':', 1);
    v_owner text := ledger.owner_of(p_address);
BEGIN
    SELECT a.id, a.owner_type = 'book' INTO account_id, shared FROM ledger.account a
     WHERE a.book_id = p_book_id AND a.kind = v_kind AND a.owner_id = v_owner AND a.asset = p_asset AND a.shard = 0;
    IF NOT FOUND THEN
        PERFORM 1 FROM ledger.account a WHERE a.book_id = p_book_id AND a.kind = v_kind AND a.owner_id = v_owner;
        refusal := CASE WHEN FOUND THEN 'currency-mismatch' ELSE 'account-unknown' END;
    END IF;
END $$;

-- An account by address, opened where the chart declares that it is opened on first use. Two first uses make one account.
CREATE FUNCTION ledger.open_on_first_use(
    p_book_id bigint, p_address text, p_asset text, OUT account_id bigint, OUT shared boolean, OUT refusal text)
LANGUAGE plpgsql AS $$
DECLARE
    v_kind  text := split_part(p_address, ':', 1);
    v_owner text := ledger.owner_of(p_address);
    v_for   text := CASE WHEN v_owner = '' THEN 'book' ELSE 'customer' END;
BEGIN
    INSERT INTO ledger.account (book_id, kind, owner_type, owner_id, asset, side)
    SELECT c.book_id, c.kind, v_for, v_owner, s.code, c.side
      FROM ledger.chart c JOIN ledger.asset s ON s.code = p_asset
     WHERE c.book_id = p_book_id AND c.kind = v_kind AND c.auto_create AND c.auto_create_for = v_for
        ON CONFLICT DO NOTHING;
    INSERT INTO ledger.balance (account_id, side, floor)
    SELECT a.id, a.side, c.floor_default
      FROM ledger.account a JOIN ledger.chart c ON c.book_id = a.book_id AND c.kind = a.kind
     WHERE a.book_id = p_book_id AND a.kind = v_kind AND a.owner_id = v_owner AND a.asset = p_asset
        ON CONFLICT DO NOTHING;
    SELECT f.account_id, f.shared, f.refusal INTO account_id, shared, refusal
      FROM ledger.account_at(p_book_id, p_address, p_asset) f;
END $$;

-- An account by address; an account of the book itself is opened on first use where the chart says so.
CREATE OR REPLACE FUNCTION ledger.find_account(
    p_book_id bigint, p_address text, p_asset text, OUT account_id bigint, OUT shared boolean, OUT refusal text)
LANGUAGE plpgsql AS $$
BEGIN
    SELECT f.account_id, f.shared, f.refusal INTO account_id, shared, refusal
      FROM ledger.account_at(p_book_id, p_address, p_asset) f;
    IF refusal IS NOT NULL AND ledger.owner_of(p_address) = '' THEN
        SELECT f.account_id, f.shared, f.refusal INTO account_id, shared, refusal
          FROM ledger.open_on_first_use(p_book_id, p_address, p_asset) f;
    END IF;
END $$;

-- What `post`, `reverse` and conditional posts have in common. p_open: open accounts that the chart lets open on first use.
-- p_if_*: conditions, arrays in parallel; an account's available funds at least, or its sequence exactly, NULL for neither.
CREATE FUNCTION ledger.post_legs(
    p_book_id bigint, p_operation text, p_hash bytea, p_kind text, p_debits text[], p_credits text[], p_assets text[],
    p_amounts bigint[], p_reference text, p_reason text, p_effective_at timestamptz, p_actor text, p_meta jsonb,
    p_reverses bigint, p_open boolean, p_if_accounts text[], p_if_assets text[], p_if_available bigint[],
    p_if_versions bigint[]) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_legs    integer := cardinality(p_amounts);
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
    v_if_ids  bigint[] := '{}';  -- the accounts that conditions are about
    v_place   integer;
    v_dr      integer;
    v_cr      integer;
BEGIN
    FOR i IN 1 .. v_legs LOOP
        FOR s IN 1 .. 2 LOOP
            SELECT f.* INTO v_found
              FROM ledger.account_at(p_book_id, CASE s WHEN 1 THEN p_debits[i] ELSE p_credits[i] END, p_assets[i]) f;
            IF v_found.refusal IS NOT NULL AND p_open THEN
                SELECT f.* INTO v_found
                  FROM ledger.open_on_first_use(p_book_id, CASE s WHEN 1 THEN p_debits[i] ELSE p_credits[i] END,
                                                p_assets[i]) f;
            END IF;
            IF v_found.refusal IS NOT NULL THEN
                v_answer := ledger.earlier(p_book_id, p_operation, p_hash);
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
    FOR i IN 1 .. coalesce(cardinality(p_if_accounts), 0) LOOP
        SELECT f.* INTO v_found FROM ledger.account_at(p_book_id, p_if_accounts[i], p_if_assets[i]) f;
        IF v_found.refusal IS NOT NULL THEN
            v_answer := ledger.earlier(p_book_id, p_operation, p_hash);
            IF v_answer.txn_id IS NULL THEN
                v_answer := ledger.refused(v_found.refusal, 'condition');
            END IF;
            RETURN v_answer;
        END IF;
        v_if_ids := v_if_ids || v_found.account_id;
    END LOOP;

    PERFORM 1 FROM ledger.balance b
      WHERE b.account_id IN (SELECT u.id FROM unnest(v_ids, v_shared) AS u (id, shared) WHERE NOT u.shared
                              UNION ALL SELECT u.id FROM unnest(v_if_ids) AS u (id))
      ORDER BY b.account_id FOR NO KEY UPDATE;
    v_answer := ledger.earlier(p_book_id, p_operation, p_hash);
    IF v_answer.txn_id IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    IF p_reverses IS NOT NULL THEN
        SELECT t.idem_key INTO v_found FROM ledger.txn t WHERE t.reverses_id = p_reverses;
        IF FOUND THEN
            RETURN ledger.refused('already-reversed', v_found.idem_key);
        END IF;
    END IF;
    FOR v_state IN SELECT b.*, array_position(v_ids, b.account_id) AS place
                     FROM ledger.balance b WHERE b.account_id = ANY (v_ids) ORDER BY b.account_id LOOP
        v_place := v_state.place;
        v_sign[v_place] := CASE v_state.side WHEN 'C' THEN 1 ELSE -1 END;
        IF v_state.closed THEN
            RETURN ledger.refused('account-closed', CASE WHEN v_debit[v_place] > 0 THEN 'debit' ELSE 'credit' END);
        ELSIF v_state.debits_frozen AND v_debit[v_place] > 0 THEN
            v_problem := ledger.refused('account-frozen', 'debit');
        ELSIF v_state.credits_frozen AND v_credit[v_place] > 0 THEN
            v_problem := ledger.refused('account-frozen', 'credit');
        ELSIF v_problem.refusal IS NULL AND v_state.floor IS NOT NULL AND NOT v_shared[v_place]
            AND v_sign[v_place] * (v_credit[v_place]::numeric - v_debit[v_place]) < 0
            AND v_sign[v_place] * (v_state.credits::numeric - v_state.debits + v_credit[v_place] - v_debit[v_place])
                - v_state.hold_out < v_state.floor THEN
            v_problem := ledger.refused('insufficient-funds', CASE v_state.side WHEN 'C' THEN 'debit' ELSE 'credit' END);
        END IF;
    END LOOP;
    IF v_problem.refusal IS NOT NULL THEN
        RETURN v_problem;
    END IF;
    v_problem := ledger.unmet(v_if_ids, p_if_available, p_if_versions);
    IF v_problem.refusal IS NOT NULL THEN
        RETURN v_problem;
    END IF;

    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, reason_code, ext_ref, effective_at, actor, meta, reverses_id)
    VALUES (p_book_id, p_operation, p_hash, p_kind, p_reason, p_reference, coalesce(p_effective_at, clock_timestamp()),
            p_actor, p_meta, p_reverses)
        ON CONFLICT DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
    IF NOT FOUND THEN
        v_answer := ledger.earlier(p_book_id, p_operation, p_hash);
        IF v_answer.txn_id IS NULL THEN -- not this operation: another reversal of the same original was quicker
            SELECT t.idem_key INTO v_found FROM ledger.txn t WHERE t.reverses_id = p_reverses;
            v_answer := ledger.refused('already-reversed', v_found.idem_key);
        END IF;
        RETURN v_answer;
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

-- The first condition that does not hold, as a refusal; a row of NULLs when all do. The accounts are locked by the caller.
CREATE FUNCTION ledger.unmet(p_ids bigint[], p_available bigint[], p_versions bigint[]) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_state record;
BEGIN
    FOR i IN 1 .. cardinality(p_ids) LOOP
        SELECT b.ver, CASE b.side WHEN 'C' THEN b.credits::numeric - b.debits ELSE b.debits::numeric - b.credits END
                      - b.hold_out AS available
          INTO v_state FROM ledger.balance b WHERE b.account_id = p_ids[i];
        IF v_state.available < p_available[i] THEN
            RETURN ledger.refused('condition-unmet', 'available');
        ELSIF v_state.ver <> p_versions[i] THEN
            RETURN ledger.refused('condition-unmet', 'version');
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- `post_legs`; where an account is missing, once more with accounts opened on first use. When that is refused too, the
-- accounts it opened are gone again: a refusal leaves nothing behind.
CREATE FUNCTION ledger.post_and_open(
    p_book_id bigint, p_operation text, p_hash bytea, p_kind text, p_debits text[], p_credits text[], p_assets text[],
    p_amounts bigint[], p_reference text, p_reason text, p_effective_at timestamptz, p_actor text, p_meta jsonb,
    p_reverses bigint, p_if_accounts text[], p_if_assets text[], p_if_available bigint[], p_if_versions bigint[])
RETURNS ledger.answer LANGUAGE plpgsql AS $$
DECLARE
    v_answer ledger.answer;
BEGIN
    v_answer := ledger.post_legs(p_book_id, p_operation, p_hash, p_kind, p_debits, p_credits, p_assets, p_amounts, p_reference,
                                 p_reason, p_effective_at, p_actor, p_meta, p_reverses, false, p_if_accounts, p_if_assets,
                                 p_if_available, p_if_versions);
    IF v_answer.refusal IS NULL OR v_answer.refusal NOT IN ('account-unknown', 'currency-mismatch') THEN
        RETURN v_answer;
    END IF;
    BEGIN
        v_answer := ledger.post_legs(p_book_id, p_operation, p_hash, p_kind, p_debits, p_credits, p_assets, p_amounts,
                                     p_reference, p_reason, p_effective_at, p_actor, p_meta, p_reverses, true, p_if_accounts,
                                     p_if_assets, p_if_available, p_if_versions);
        IF v_answer.refusal IS NOT NULL THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = 'PH001';
        END IF;
    EXCEPTION WHEN SQLSTATE 'PH001' THEN
        NULL; -- only undoes; the answer is kept
    END;
    RETURN v_answer;
END $$;

-- What an operation that posts asks for. The value date is hashed in one zone, whatever the session's. Not IMMUTABLE, as
-- jsonb_build_array is not: a promise beyond what is in it would keep it from being inlined.
CREATE FUNCTION ledger.post_hash(
    p_kind text, p_debits text[], p_credits text[], p_assets text[], p_amounts bigint[], p_reference text, p_reason text,
    p_effective_at timestamptz, p_meta jsonb) RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT sha256(convert_to(jsonb_build_array(p_kind, p_debits, p_credits, p_assets, p_amounts, p_reference, p_reason,
                                               p_effective_at AT TIME ZONE 'UTC', p_meta)::text, 'UTF8'))
$$;

-- Several postings in one transaction: all or none. Arrays run in parallel, one element per leg.
CREATE OR REPLACE FUNCTION ledger.post(
    p_book text, p_operation text, p_kind text, p_debits text[], p_credits text[], p_assets text[], p_amounts bigint[],
    p_reference text, p_reason text, p_effective_at timestamptz, p_actor text, p_meta jsonb) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_book bigint;
BEGIN
    SELECT k.id INTO v_book FROM ledger.book k WHERE k.code = p_book;
    IF NOT FOUND THEN
        RETURN ledger.refused('account-unknown', 'book');
    END IF;
    RETURN ledger.post_and_open(
        v_book, p_operation,
        ledger.post_hash(p_kind, p_debits, p_credits, p_assets, p_amounts, p_reference, p_reason, p_effective_at, p_meta),
        p_kind, p_debits, p_credits, p_assets, p_amounts, p_reference, p_reason, p_effective_at, p_actor, p_meta, NULL,
        NULL, NULL, NULL, NULL);
END $$;

-- The same under conditions, which are part of what is asked for.
CREATE FUNCTION ledger.post_if(
    p_book text, p_operation text, p_kind text, p_debits text[], p_credits text[], p_assets text[], p_amounts bigint[],
    p_reference text, p_reason text, p_effective_at timestamptz, p_actor text, p_meta jsonb, p_if_accounts text[],
    p_if_assets text[], p_if_available bigint[], p_if_versions bigint[]) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_book bigint;
BEGIN
    SELECT k.id INTO v_book FROM ledger.book k WHERE k.code = p_book;
    IF NOT FOUND THEN
        RETURN ledger.refused('account-unknown', 'book');
    END IF;
    RETURN ledger.post_and_open(
        v_book, p_operation,
        sha256(convert_to(jsonb_build_array(p_kind, p_debits, p_credits, p_assets, p_amounts, p_reference, p_reason,
                                            p_effective_at AT TIME ZONE 'UTC', p_meta, p_if_accounts, p_if_assets,
                                            p_if_available, p_if_versions)::text, 'UTF8')),
        p_kind, p_debits, p_credits, p_assets, p_amounts, p_reference, p_reason, p_effective_at, p_actor, p_meta, NULL,
        p_if_accounts, p_if_assets, p_if_available, p_if_versions);
END $$;

-- A new transaction that mirrors every leg of an earlier one and names it. Once only per original: the unique index decides
-- between two that come at once.
CREATE FUNCTION ledger.reverse(
    p_book text, p_original text, p_operation text, p_reason text, p_reference text, p_effective_at timestamptz,
    p_actor text) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_hash     bytea := sha256(convert_to(jsonb_build_array('reverse', p_original, p_reason, p_reference,
                                                            p_effective_at AT TIME ZONE 'UTC')::text, 'UTF8'));
    v_original record;
    v_legs     record;
    v_answer   ledger.answer;
BEGIN
    SELECT t.id, t.book_id, t.kind, t.ext_ref INTO v_original
      FROM ledger.book k JOIN ledger.txn t ON t.book_id = k.id AND t.idem_key = p_original WHERE k.code = p_book;
    IF NOT FOUND THEN
        RETURN ledger.refused('transaction-unknown', p_original);
    END IF;
    IF v_original.kind NOT IN ('post', 'capture', 'adjust') THEN
        v_answer := ledger.earlier(v_original.book_id, p_operation, v_hash);
        IF v_answer.txn_id IS NULL THEN
            v_answer := ledger.refused('not-reversible', v_original.kind);
        END IF;
        RETURN v_answer;
    END IF;
    SELECT array_agg(concat_ws(':', c.kind, nullif(c.owner_id, '')) ORDER BY p.leg) AS debits,
           array_agg(concat_ws(':', d.kind, nullif(d.owner_id, '')) ORDER BY p.leg) AS credits,
           array_agg(p.asset ORDER BY p.leg) AS assets, array_agg(p.amount ORDER BY p.leg) AS amounts
      INTO v_legs
      FROM ledger.posting p JOIN ledger.account d ON d.id = p.dr_account JOIN ledger.account c ON c.id = p.cr_account
     WHERE p.txn_id = v_original.id;
    RETURN ledger.post_legs(v_original.book_id, p_operation, v_hash, 'reverse', v_legs.debits, v_legs.credits, v_legs.assets,
                            v_legs.amounts, coalesce(p_reference, v_original.ext_ref), p_reason, p_effective_at, p_actor, NULL,
                            v_original.id, false, NULL, NULL, NULL, NULL);
END $$;

-- Set money of an account aside. p_amount includes p_fee. p_lifetime NULL: until captured or released, never by time.
DROP FUNCTION ledger.place_hold(text, text, text, text, bigint, bigint, interval, text, text);
CREATE FUNCTION ledger.place_hold(
    p_book text, p_operation text, p_account text, p_asset text, p_amount bigint, p_fee bigint, p_lifetime interval,
    p_reference text, p_actor text, p_if_accounts text[], p_if_assets text[], p_if_available bigint[],
    p_if_versions bigint[]) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_hash   bytea := sha256(convert_to(CASE WHEN p_if_accounts IS NULL
        THEN jsonb_build_array('hold', p_account, p_asset, p_amount, p_fee, p_lifetime, p_reference)
        ELSE jsonb_build_array('hold', p_account, p_asset, p_amount, p_fee, p_lifetime, p_reference, p_if_accounts,
                               p_if_assets, p_if_available, p_if_versions) END::text, 'UTF8'));
    v_book   bigint;
    v_from   record;
    v_if     record;
    v_if_ids bigint[] := '{}';
    v_answer ledger.answer;
    v_until  timestamptz := clock_timestamp() + p_lifetime;
BEGIN
    -- Apart, so that the account is always looked for inside the book, however few books there are when plans are made.
    SELECT k.id INTO v_book FROM ledger.book k WHERE k.code = p_book;
    IF p_if_accounts IS NOT NULL THEN
        FOR i IN 1 .. cardinality(p_if_accounts) LOOP
            SELECT f.* INTO v_if FROM ledger.account_at(v_book, p_if_accounts[i], p_if_assets[i]) f;
            IF v_if.refusal IS NOT NULL THEN
                v_answer := ledger.earlier(v_book, p_operation, v_hash);
                IF v_answer.txn_id IS NULL THEN
                    v_answer := ledger.refused(v_if.refusal, 'condition');
                END IF;
                RETURN v_answer;
            END IF;
            v_if_ids := v_if_ids || v_if.account_id;
        END LOOP;
        PERFORM 1 FROM ledger.balance b
          WHERE b.account_id = (ledger.account_at(v_book, p_account, p_asset)).account_id
             OR b.account_id = ANY (v_if_ids)
          ORDER BY b.account_id FOR NO KEY UPDATE;
    END IF;
    SELECT b.* INTO v_from
      FROM ledger.account a JOIN ledger.balance b ON b.account_id = a.id
     WHERE a.book_id = v_book AND a.kind = split_part(p_account, ':', 1) AND a.owner_id = ledger.owner_of(p_account)
       AND a.asset = p_asset AND a.shard = 0
       FOR NO KEY UPDATE OF b;
    IF NOT FOUND THEN
        v_answer := ledger.earlier(v_book, p_operation, v_hash);
        IF v_answer.txn_id IS NULL THEN
            v_answer := ledger.refused((ledger.account_at(v_book, p_account, p_asset)).refusal, 'debit');
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
    IF p_if_accounts IS NOT NULL THEN
        v_answer := ledger.unmet(v_if_ids, p_if_available, p_if_versions);
        IF v_answer.refusal IS NOT NULL THEN
            RETURN v_answer;
        END IF;
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

-- Pay out a hold, or p_amount of its principal, to p_to (NULL: all that is left of the principal).
-- p_final frees what is left after it; without it the rest stays held for another capture. A capture of the last of the
-- principal is final in any case. The fee goes to fee income, whole, with the final capture and only then.
-- A payer frozen or closed after the hold does not stop it: the hold was the bank's promise.
DROP FUNCTION ledger.capture_hold(text, text, text, text, text);
CREATE FUNCTION ledger.capture_hold(
    p_book text, p_hold_operation text, p_operation text, p_to text, p_asset text, p_amount bigint, p_final boolean,
    p_actor text) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_hash        bytea := sha256(convert_to(CASE WHEN p_amount IS NULL
        THEN jsonb_build_array('capture', p_hold_operation, p_to)
        ELSE jsonb_build_array('capture', p_hold_operation, p_to, p_asset, p_amount, p_final) END::text, 'UTF8'));
    v_hold        record;
    v_to          record;
    v_state       record;
    v_answer      ledger.answer;
    v_refusal     text;
    v_left        bigint; -- of the principal
    v_amount      bigint;
    v_final       boolean;
    v_fee         bigint; -- that this capture takes
    v_freed       bigint; -- that this capture gives back
    v_fee_account bigint;
    v_payer_seq   bigint;
    v_payer_after bigint;
    v_to_seq      bigint;
    v_to_after    bigint;
    v_fee_seq     bigint;
    v_fee_after   bigint;
BEGIN
    SELECT h.id, h.from_account, h.asset, h.amount, h.fee, s.final, s.captured, s.released, s.expires_at, t.book_id, t.ext_ref
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
    ELSIF p_asset <> v_hold.asset THEN
        RETURN ledger.refused('currency-mismatch', 'hold');
    END IF;
    v_left := v_hold.amount - v_hold.fee - v_hold.captured;
    v_amount := coalesce(p_amount, v_left);
    IF v_amount > v_left THEN
        RETURN ledger.refused('amount-not-allowed', 'hold');
    END IF;
    v_final := p_final OR v_amount = v_left;
    v_fee := CASE WHEN v_final THEN v_hold.fee ELSE 0 END;
    v_freed := CASE WHEN v_final THEN v_left - v_amount ELSE 0 END;
    SELECT f.* INTO v_to FROM ledger.find_account(v_hold.book_id, p_to, v_hold.asset) f;
    IF v_to.refusal IS NULL AND v_to.account_id = v_hold.from_account THEN
        RETURN ledger.refused('same-account', NULL);
    END IF;
    IF v_fee > 0 THEN
        SELECT f.account_id, f.refusal INTO v_fee_account, v_refusal
          FROM ledger.find_account(v_hold.book_id, 'fee-income', v_hold.asset) f;
        IF v_refusal IS NULL AND v_fee_account = v_to.account_id THEN
            RETURN ledger.refused('same-account', 'fee-income');
        END IF;
    END IF;
    IF v_to.refusal IS NOT NULL AND v_refusal IS NULL THEN
        SELECT f.* INTO v_to FROM ledger.open_on_first_use(v_hold.book_id, p_to, v_hold.asset) f;
    END IF;
    IF v_to.refusal IS NOT NULL THEN
        RETURN ledger.refused(v_to.refusal, 'credit');
    ELSIF v_refusal IS NOT NULL THEN
        RETURN ledger.refused(v_refusal, 'fee-income');
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

    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor, hold_id, hold_freed)
    VALUES (v_hold.book_id, p_operation, v_hash, 'capture', v_hold.ext_ref, p_actor, v_hold.id, nullif(v_freed, 0))
        ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
    IF NOT FOUND THEN
        RETURN ledger.earlier(v_hold.book_id, p_operation, v_hash);
    END IF;
    UPDATE ledger.hold_state SET captured = captured + v_amount + v_fee, released = v_freed WHERE hold_id = v_hold.id;
    INSERT INTO ledger.outbox (topic, key, txn_id)
    VALUES ('ledger.capture', coalesce(v_hold.ext_ref, p_operation), v_answer.txn_id);
    SELECT m.seq, m.after INTO v_payer_seq, v_payer_after
      FROM ledger.move(v_hold.from_account, v_amount + v_fee, 0, CASE WHEN v_fee > 0 THEN 2 ELSE 1 END,
                       v_amount + v_fee + v_freed) m;
    IF v_fee > 0 AND v_to.shared AND v_fee_account < v_to.account_id THEN
        SELECT m.seq, m.after INTO v_fee_seq, v_fee_after FROM ledger.move(v_fee_account, 0, v_fee, 1, 0) m;
    END IF;
    SELECT m.seq, m.after INTO v_to_seq, v_to_after FROM ledger.move(v_to.account_id, 0, v_amount, 1, 0) m;
    IF v_fee > 0 AND v_fee_seq IS NULL THEN
        SELECT m.seq, m.after INTO v_fee_seq, v_fee_after FROM ledger.move(v_fee_account, 0, v_fee, 1, 0) m;
    END IF;
    INSERT INTO ledger.posting (txn_id, leg, dr_account, cr_account, asset, amount, dr_seq, dr_after, cr_seq, cr_after)
    SELECT v_answer.txn_id, 1, v_hold.from_account, v_to.account_id, v_hold.asset, v_amount,
           v_payer_seq - CASE WHEN v_fee > 0 THEN 1 ELSE 0 END, v_payer_after + v_fee, v_to_seq, v_to_after
    UNION ALL
    SELECT v_answer.txn_id, 2, v_hold.from_account, v_fee_account, v_hold.asset, v_fee,
           v_payer_seq, v_payer_after, v_fee_seq, v_fee_after
     WHERE v_fee > 0;
    v_answer.replayed := false;
    RETURN v_answer;
END $$;

-- Free what is left of a hold without paying. Once only.
CREATE OR REPLACE FUNCTION ledger.release_hold(p_book text, p_hold_operation text, p_operation text, p_actor text)
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
    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor, hold_id, hold_freed)
    VALUES (v_hold.book_id, p_operation, v_hash, 'void', v_hold.ext_ref, p_actor, v_hold.hold_id,
            v_hold.amount - v_hold.captured)
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

-- Give an open hold p_lifetime from now, never less than it has. A hold without a time keeps having none.
CREATE FUNCTION ledger.renew_hold(p_book text, p_hold_operation text, p_operation text, p_lifetime interval, p_actor text)
RETURNS ledger.answer LANGUAGE plpgsql AS $$
DECLARE
    v_hash   bytea := sha256(convert_to(jsonb_build_array('renew', p_hold_operation, p_lifetime)::text, 'UTF8'));
    v_hold   record;
    v_until  timestamptz;
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
    v_answer := ledger.earlier(v_hold.book_id, p_operation, v_hash);
    IF v_answer.txn_id IS NOT NULL THEN
        RETURN v_answer;
    ELSIF v_hold.final THEN
        RETURN ledger.refused('hold-final', CASE WHEN v_hold.captured > 0 THEN 'captured' ELSE 'released' END);
    ELSIF v_hold.expires_at <= clock_timestamp() THEN
        RETURN ledger.refused('hold-expired', p_hold_operation);
    END IF;
    v_until := CASE WHEN v_hold.expires_at IS NOT NULL THEN greatest(v_hold.expires_at, clock_timestamp() + p_lifetime) END;
    INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor, hold_id, hold_until)
    VALUES (v_hold.book_id, p_operation, v_hash, 'renew', v_hold.ext_ref, p_actor, v_hold.hold_id, v_until)
        ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
    IF NOT FOUND THEN
        RETURN ledger.earlier(v_hold.book_id, p_operation, v_hash);
    END IF;
    UPDATE ledger.hold_state SET expires_at = v_until WHERE hold_id = v_hold.hold_id;
    INSERT INTO ledger.outbox (topic, key, txn_id)
    VALUES ('ledger.renew', coalesce(v_hold.ext_ref, p_operation), v_answer.txn_id);
    v_answer.replayed := false;
    RETURN v_answer;
END $$;

-- Free the holds whose time has run out, at most p_limit of them, and tell how many. Holds without a time are never taken.
CREATE OR REPLACE FUNCTION ledger.expire_holds(p_limit integer, p_actor text) RETURNS integer LANGUAGE plpgsql AS $$
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
        INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, ext_ref, actor, hold_id, hold_freed)
        VALUES (v_hold.book_id, 'expire:' || v_hold.hold_id,
                sha256(convert_to(jsonb_build_array('expire', v_hold.hold_id)::text, 'UTF8')),
                'expire', v_hold.ext_ref, p_actor, v_hold.hold_id, v_hold.amount - v_hold.captured)
        RETURNING id INTO v_txn;
        INSERT INTO ledger.outbox (topic, key, txn_id)
        VALUES ('ledger.expire', coalesce(v_hold.ext_ref, v_hold.hold_id::text), v_txn);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;

-- One posting, the common case, with as few statements as it takes. Whatever is not plain (an account that is not there, a
-- refusal, a repeat) is answered by `post`.
CREATE FUNCTION ledger.post_one(
    p_book text, p_operation text, p_kind text, p_debit text, p_credit text, p_asset text, p_amount bigint,
    p_reference text, p_reason text, p_effective_at timestamptz, p_actor text) RETURNS ledger.answer
LANGUAGE plpgsql AS $$
DECLARE
    v_book      bigint;
    v_dr        bigint;
    v_cr        bigint;
    v_dr_shared boolean := strpos(p_debit, ':') = 0;
    v_cr_shared boolean := strpos(p_credit, ':') = 0;
    v_dr_seq    bigint;
    v_cr_seq    bigint;
    v_dr_after  bigint;
    v_cr_after  bigint;
    v_plain     boolean;
    v_answer    ledger.answer;
BEGIN
    SELECT k.id,
           (SELECT a.id FROM ledger.account a
             WHERE a.book_id = k.id AND a.kind = split_part(p_debit, ':', 1) AND a.owner_id = ledger.owner_of(p_debit)
               AND a.asset = p_asset AND a.shard = 0),
           (SELECT a.id FROM ledger.account a
             WHERE a.book_id = k.id AND a.kind = split_part(p_credit, ':', 1) AND a.owner_id = ledger.owner_of(p_credit)
               AND a.asset = p_asset AND a.shard = 0)
      INTO v_book, v_dr, v_cr FROM ledger.book k WHERE k.code = p_book;
    -- Customers first, in the order of their ids. A floor of an account of the book itself is kept by the table's own check.
    IF NOT v_dr_shared OR NOT v_cr_shared THEN
        SELECT bool_and(l.free) INTO v_plain
          FROM (SELECT NOT b.closed
                       AND CASE b.account_id WHEN v_dr THEN NOT b.debits_frozen ELSE NOT b.credits_frozen END
                       AND (b.floor IS NULL OR CASE WHEN (b.account_id = v_dr) <> (b.side = 'C') THEN true
                            WHEN b.side = 'C' THEN b.credits::numeric - b.debits - p_amount - b.hold_out >= b.floor
                            ELSE b.debits::numeric - b.credits - p_amount - b.hold_out >= b.floor END) AS free
                  FROM ledger.balance b
                 WHERE b.account_id IN (CASE WHEN v_dr_shared THEN v_cr ELSE v_dr END,
                                        CASE WHEN v_cr_shared THEN v_dr ELSE v_cr END)
                 ORDER BY b.account_id FOR NO KEY UPDATE) l;
    END IF;
    IF v_dr_shared OR v_cr_shared THEN
        SELECT NOT bool_or(b.closed OR CASE b.account_id WHEN v_dr THEN b.debits_frozen ELSE b.credits_frozen END)
               AND v_plain IS NOT FALSE INTO v_plain
          FROM ledger.balance b
         WHERE b.account_id IN (CASE WHEN v_dr_shared THEN v_dr ELSE v_cr END, CASE WHEN v_cr_shared THEN v_cr ELSE v_dr END);
    END IF;
    IF v_plain AND v_dr <> v_cr THEN
        INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, reason_code, ext_ref, effective_at, actor)
        VALUES (v_book, p_operation,
                ledger.post_hash(p_kind, ARRAY[p_debit], ARRAY[p_credit], ARRAY[p_asset], ARRAY[p_amount], p_reference,
                                 p_reason, p_effective_at, NULL),
                p_kind, p_reason, p_reference, coalesce(p_effective_at, clock_timestamp()), p_actor)
            ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, booked_at INTO v_answer.txn_id, v_answer.booked_at;
        IF FOUND THEN
            IF v_dr_shared AND v_cr_shared AND v_cr < v_dr THEN
                PERFORM 1 FROM ledger.balance b WHERE b.account_id = v_cr FOR NO KEY UPDATE;
            END IF;
            UPDATE ledger.balance SET debits = debits + p_amount, ver = ver + 1 WHERE account_id = v_dr
                RETURNING ver, CASE side WHEN 'C' THEN credits - debits ELSE debits - credits END INTO v_dr_seq, v_dr_after;
            UPDATE ledger.balance SET credits = credits + p_amount, ver = ver + 1 WHERE account_id = v_cr
                RETURNING ver, CASE side WHEN 'C' THEN credits - debits ELSE debits - credits END INTO v_cr_seq, v_cr_after;
            INSERT INTO ledger.posting (txn_id, leg, dr_account, cr_account, asset, amount, dr_seq, dr_after, cr_seq, cr_after)
            VALUES (v_answer.txn_id, 1, v_dr, v_cr, p_asset, p_amount, v_dr_seq, v_dr_after, v_cr_seq, v_cr_after);
            INSERT INTO ledger.outbox (topic, key, txn_id)
            VALUES ('ledger.' || p_kind, coalesce(p_reference, p_operation), v_answer.txn_id);
            v_answer.replayed := false;
            RETURN v_answer;
        END IF;
    END IF;
    RETURN ledger.post(p_book, p_operation, p_kind, ARRAY[p_debit], ARRAY[p_credit], ARRAY[p_asset], ARRAY[p_amount],
                       p_reference, p_reason, p_effective_at, p_actor, NULL);
END $$;

-- Many postings in one statement, each a transaction of its own: arrays in parallel, answers in their order. Each item is
-- decided as if the accepted ones before it were booked; a refused one does not stop the others unless p_atomic, where one
-- refusal leaves them all undone ('batch-refused'). An operation that stands twice in one batch is done once; its second
-- place is answered 'again', to be asked for by itself. Raises PH002 when another session takes one of the operations in the
-- same moment: nothing is written, and the items are to be asked for one by one.
CREATE FUNCTION ledger.post_batch(
    p_books text[], p_operations text[], p_debits text[], p_credits text[], p_assets text[], p_amounts bigint[],
    p_references text[], p_reasons text[], p_effective_at timestamptz[], p_actor text, p_atomic boolean)
RETURNS SETOF ledger.answer LANGUAGE plpgsql AS $$
DECLARE
    v_items    integer := cardinality(p_operations);
    v_book     bigint[];    -- per item: its book, its accounts and their places among the distinct accounts
    v_dr       bigint[];
    v_cr       bigint[];
    v_dr_at    integer[];
    v_cr_at    integer[];
    v_again    boolean[];
    v_ids      bigint[];    -- per distinct account, in the order of their ids: what it is ...
    v_shared   boolean[];
    v_sign     integer[];
    v_free     numeric[];   -- ... what may still be taken from it, NULL without a floor of our keeping ...
    v_closed   boolean[];
    v_no_dr    boolean[];
    v_no_cr    boolean[];
    v_debit    bigint[];    -- ... and what this batch books on it
    v_credit   bigint[];
    v_sides    bigint[];
    v_seq      bigint[];
    v_after    bigint[];
    v_answers  ledger.answer[] := array_fill(NULL::ledger.answer, ARRAY[v_items]);
    v_plain    boolean[] := array_fill(false, ARRAY[v_items]);
    v_txn      bigint[];
    v_at       timestamptz[];
    v_dr_seq   bigint[] := array_fill(0::bigint, ARRAY[v_items]);
    v_cr_seq   bigint[] := array_fill(0::bigint, ARRAY[v_items]);
    v_dr_after bigint[] := array_fill(0::bigint, ARRAY[v_items]);
    v_cr_after bigint[] := array_fill(0::bigint, ARRAY[v_items]);
    v_count    integer := 0;
    v_refused  boolean := false;
    v_refusal  text;
    v_detail   text;
    v_amount   bigint;
    v_earlier  record;
    v_now      timestamptz; -- one for all: keys are taken in their own order, sequences in the batch's
    d          integer;
    c          integer;
BEGIN
    -- Sub-selects, not joins: of a join the planner looks up a young book's accounts by the book alone.
    SELECT array_agg(u.book_id ORDER BY u.n), array_agg(u.dr ORDER BY u.n), array_agg(u.cr ORDER BY u.n),
           array_agg(u.turn > 1 ORDER BY u.n)
      INTO v_book, v_dr, v_cr, v_again
      FROM (SELECT u.n, k.id AS book_id, row_number() OVER (PARTITION BY u.book, u.operation ORDER BY u.n) AS turn,
                   (SELECT a.id FROM ledger.account a
                     WHERE a.book_id = k.id AND a.kind = split_part(u.debit, ':', 1)
                       AND a.owner_id = ledger.owner_of(u.debit) AND a.asset = u.asset AND a.shard = 0) AS dr,
                   (SELECT a.id FROM ledger.account a
                     WHERE a.book_id = k.id AND a.kind = split_part(u.credit, ':', 1)
                       AND a.owner_id = ledger.owner_of(u.credit) AND a.asset = u.asset AND a.shard = 0) AS cr
              FROM unnest(p_books, p_operations, p_debits, p_credits, p_assets)
                   WITH ORDINALITY AS u (book, operation, debit, credit, asset, n)
              LEFT JOIN ledger.book k ON k.code = u.book) u;
    PERFORM 1 FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id AND a.owner_type <> 'book'
      WHERE b.account_id = ANY (v_dr || v_cr) ORDER BY b.account_id FOR NO KEY UPDATE OF b;
    -- After the lock, so that what is read is what is there.
    SELECT array_agg(b.account_id ORDER BY b.account_id), array_agg(a.owner_type = 'book' ORDER BY b.account_id),
           array_agg(CASE b.side WHEN 'C' THEN 1 ELSE -1 END ORDER BY b.account_id),
           array_agg(CASE WHEN a.owner_type <> 'book' THEN CASE b.side WHEN 'C' THEN b.credits::numeric - b.debits
                          ELSE b.debits::numeric - b.credits END - b.hold_out - b.floor END ORDER BY b.account_id),
           array_agg(b.closed ORDER BY b.account_id), array_agg(b.debits_frozen ORDER BY b.account_id),
           array_agg(b.credits_frozen ORDER BY b.account_id)
      INTO v_ids, v_shared, v_sign, v_free, v_closed, v_no_dr, v_no_cr
      FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id WHERE b.account_id = ANY (v_dr || v_cr);
    SELECT array_agg(x.place ORDER BY u.n), array_agg(y.place ORDER BY u.n) INTO v_dr_at, v_cr_at
      FROM unnest(v_dr, v_cr) WITH ORDINALITY AS u (dr, cr, n)
      LEFT JOIN unnest(v_ids) WITH ORDINALITY AS x (id, place) ON x.id = u.dr
      LEFT JOIN unnest(v_ids) WITH ORDINALITY AS y (id, place) ON y.id = u.cr;
    v_debit := array_fill(0::bigint, ARRAY[coalesce(cardinality(v_ids), 0)]);
    v_credit := v_debit;
    v_sides := v_debit;

    FOR v_earlier IN
        SELECT u.n, t.id, t.booked_at,
               t.idem_hash = ledger.post_hash('post', ARRAY[p_debits[u.n]], ARRAY[p_credits[u.n]], ARRAY[p_assets[u.n]],
                                              ARRAY[p_amounts[u.n]], p_references[u.n], p_reasons[u.n], p_effective_at[u.n],
                                              NULL) AS same
          FROM unnest(v_book, p_operations) WITH ORDINALITY AS u (book, operation, n)
          JOIN ledger.txn t ON t.book_id = u.book AND t.idem_key = u.operation
         WHERE v_dr[u.n] IS DISTINCT FROM v_cr[u.n] OR v_dr[u.n] IS NULL
    LOOP
        IF v_earlier.same THEN
            v_answers[v_earlier.n] := ROW(NULL, NULL, v_earlier.id, v_earlier.booked_at, true);
        ELSE
            v_answers[v_earlier.n] := ledger.refused('duplicate-operation', p_operations[v_earlier.n]);
            v_refused := true;
        END IF;
    END LOOP;
    FOR i IN 1 .. v_items LOOP
        CONTINUE WHEN NOT v_answers[i] IS NULL;
        d := v_dr_at[i];
        c := v_cr_at[i];
        v_amount := p_amounts[i];
        v_refusal := NULL;
        IF v_again[i] THEN
            v_refusal := 'again';
            v_detail := NULL;
        ELSIF v_book[i] IS NULL THEN
            v_refusal := 'account-unknown';
            v_detail := 'book';
        ELSIF d IS NULL THEN
            v_refusal := (ledger.account_at(v_book[i], p_debits[i], p_assets[i])).refusal;
            v_detail := 'debit';
        ELSIF c IS NULL THEN
            v_refusal := (ledger.account_at(v_book[i], p_credits[i], p_assets[i])).refusal;
            v_detail := 'credit';
        ELSIF d = c THEN
            v_refusal := 'same-account';
            v_detail := NULL;
        ELSIF v_closed[d] THEN
            v_refusal := 'account-closed';
            v_detail := 'debit';
        ELSIF v_closed[c] THEN
            v_refusal := 'account-closed';
            v_detail := 'credit';
        ELSIF v_no_dr[d] THEN
            v_refusal := 'account-frozen';
            v_detail := 'debit';
        ELSIF v_no_cr[c] THEN
            v_refusal := 'account-frozen';
            v_detail := 'credit';
        ELSIF v_sign[d] = 1 AND v_free[d] < v_amount THEN
            v_refusal := 'insufficient-funds';
            v_detail := 'debit';
        ELSIF v_sign[c] = -1 AND v_free[c] < v_amount THEN
            v_refusal := 'insufficient-funds';
            v_detail := 'credit';
        ELSE
            v_plain[i] := true;
            v_count := v_count + 1;
            v_free[d] := v_free[d] - v_sign[d] * v_amount;
            v_free[c] := v_free[c] + v_sign[c] * v_amount;
            v_debit[d] := v_debit[d] + v_amount;
            v_credit[c] := v_credit[c] + v_amount;
            v_sides[d] := v_sides[d] + 1;
            v_sides[c] := v_sides[c] + 1;
        END IF;
        IF v_refusal IS NOT NULL THEN
            v_answers[i] := ledger.refused(v_refusal, v_detail);
            v_refused := true;
        END IF;
    END LOOP;
    IF p_atomic AND v_refused THEN
        FOR i IN 1 .. v_items LOOP
            IF v_plain[i] THEN
                RETURN NEXT ledger.refused('batch-refused', NULL);
            ELSE
                RETURN NEXT v_answers[i];
            END IF;
        END LOOP;
        RETURN;
    END IF;

    IF v_count > 0 THEN
        v_now := clock_timestamp();
        WITH made AS (
            INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, reason_code, ext_ref, effective_at, booked_at, actor)
            SELECT u.book, u.operation,
                   ledger.post_hash('post', ARRAY[u.debit], ARRAY[u.credit], ARRAY[u.asset], ARRAY[u.amount], u.reference,
                                    u.reason, u.effective_at, NULL),
                   'post', u.reason, u.reference, coalesce(u.effective_at, v_now), v_now, p_actor
              FROM unnest(v_book, p_operations, p_debits, p_credits, p_assets, p_amounts, p_references, p_reasons,
                          p_effective_at, v_plain)
                   AS u (book, operation, debit, credit, asset, amount, reference, reason, effective_at, plain)
             WHERE u.plain ORDER BY u.book, u.operation
                ON CONFLICT (book_id, idem_key) DO NOTHING RETURNING id, book_id, idem_key, booked_at)
        SELECT array_agg(m.id ORDER BY u.n), array_agg(m.booked_at ORDER BY u.n) INTO v_txn, v_at
          FROM unnest(v_book, p_operations, v_plain) WITH ORDINALITY AS u (book, operation, plain, n)
          LEFT JOIN made m ON u.plain AND m.book_id = u.book AND m.idem_key = u.operation;
        IF cardinality(array_remove(v_txn, NULL)) <> v_count THEN
            RAISE EXCEPTION 'an operation of the batch was taken in the same moment' USING ERRCODE = 'PH002';
        END IF;
        PERFORM 1 FROM ledger.balance b
          WHERE b.account_id IN (SELECT u.id FROM unnest(v_ids, v_shared) AS u (id, shared) WHERE u.shared)
          ORDER BY b.account_id FOR NO KEY UPDATE;
        WITH moved AS (
            UPDATE ledger.balance b SET debits = b.debits + u.debit, credits = b.credits + u.credit, ver = b.ver + u.sides
              FROM unnest(v_ids, v_debit, v_credit, v_sides) AS u (id, debit, credit, sides)
             WHERE b.account_id = u.id AND u.sides > 0
            RETURNING b.account_id, b.ver - u.sides AS seq,
                CASE b.side WHEN 'C' THEN b.credits - u.credit - b.debits + u.debit
                            ELSE b.debits - u.debit - b.credits + u.credit END AS after)
        SELECT array_agg(m.seq ORDER BY u.place), array_agg(m.after ORDER BY u.place) INTO v_seq, v_after
          FROM unnest(v_ids) WITH ORDINALITY AS u (id, place) LEFT JOIN moved m ON m.account_id = u.id;
        FOR i IN 1 .. v_items LOOP
            CONTINUE WHEN NOT v_plain[i];
            d := v_dr_at[i];
            c := v_cr_at[i];
            v_amount := p_amounts[i];
            v_seq[d] := v_seq[d] + 1;
            v_seq[c] := v_seq[c] + 1;
            v_after[d] := v_after[d] - v_sign[d] * v_amount;
            v_after[c] := v_after[c] + v_sign[c] * v_amount;
            v_dr_seq[i] := v_seq[d];
            v_cr_seq[i] := v_seq[c];
            v_dr_after[i] := v_after[d];
            v_cr_after[i] := v_after[c];
        END LOOP;
        INSERT INTO ledger.posting (txn_id, leg, dr_account, cr_account, asset, amount, dr_seq, dr_after, cr_seq, cr_after)
        SELECT u.txn, 1, u.dr, u.cr, u.asset, u.amount, u.dr_seq, u.dr_after, u.cr_seq, u.cr_after
          FROM unnest(v_txn, v_dr, v_cr, p_assets, p_amounts, v_dr_seq, v_dr_after, v_cr_seq, v_cr_after)
               AS u (txn, dr, cr, asset, amount, dr_seq, dr_after, cr_seq, cr_after)
         WHERE u.txn IS NOT NULL;
        INSERT INTO ledger.outbox (topic, key, txn_id)
        SELECT 'ledger.post', coalesce(u.reference, u.operation), u.txn
          FROM unnest(p_references, p_operations, v_txn) AS u (reference, operation, txn) WHERE u.txn IS NOT NULL;
    END IF;
    FOR i IN 1 .. v_items LOOP
        IF v_plain[i] THEN
            RETURN NEXT ROW(NULL, NULL, v_txn[i], v_at[i], false)::ledger.answer;
        ELSE
            RETURN NEXT v_answers[i];
        END IF;
    END LOOP;
END $$;
