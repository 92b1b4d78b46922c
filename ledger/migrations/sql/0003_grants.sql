-- The role that the hub's processes work as. It reads, appends, and updates balances and the state of holds; it owns
-- nothing, so it can neither change or remove what was written nor switch a trigger off.
-- Roles belong to the whole server: other databases may have made it already, or be making it right now.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'payhub_ledger_app') THEN
        CREATE ROLE payhub_ledger_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role payhub_ledger_app does not exist and % may not create it', current_user
            USING HINT = 'Let an administrator run: CREATE ROLE payhub_ledger_app NOLOGIN';
END $$;

-- Whoever migrates may also work as the role: on one machine the same user does both.
DO $$
BEGIN
    FOR attempt IN 1 .. 10 LOOP
        EXIT WHEN pg_has_role(current_user, 'payhub_ledger_app', 'SET');
        BEGIN
            EXECUTE format('GRANT payhub_ledger_app TO %I', current_user);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE '% may not work as payhub_ledger_app', current_user;
                EXIT;
            WHEN internal_error OR unique_violation THEN  -- the same grant at the same time, in another database
                PERFORM pg_sleep(0.05);
        END;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA ledger TO payhub_ledger_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA ledger TO payhub_ledger_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger TO payhub_ledger_app;
GRANT UPDATE (name) ON ledger.account_holder TO payhub_ledger_app;
GRANT UPDATE (sent) ON ledger.outbox_cursor TO payhub_ledger_app;
REVOKE INSERT ON ledger.rebuilt_balance, ledger.entry FROM payhub_ledger_app;
DO $$
DECLARE
    v_table   text;
    v_columns text;
BEGIN
    IF to_regclass('ledger.alembic_version') IS NOT NULL THEN
        REVOKE INSERT ON ledger.alembic_version FROM payhub_ledger_app;
    END IF;
    -- What moves with each booking; whose it is and how much was held at first does not.
    FOREACH v_table IN ARRAY ARRAY['balance', 'hold_state'] LOOP
        SELECT string_agg(quote_ident(c.attname), ', ') INTO v_columns
          FROM pg_attribute c
         WHERE c.attrelid = ('ledger.' || v_table)::regclass AND c.attnum > 0 AND NOT c.attisdropped
           AND c.attgenerated = '' AND c.attname NOT IN ('account_id', 'side', 'hold_id', 'from_account', 'amount');
        EXECUTE format('GRANT UPDATE (%s) ON ledger.%I TO payhub_ledger_app', v_columns, v_table);
    END LOOP;
END $$;
