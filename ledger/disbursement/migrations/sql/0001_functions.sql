-- The one place that says whether a store would be paid, and if not why. p_total is NULL when nothing is pending.
CREATE FUNCTION disbursement.verdict(
    p_automation boolean, p_merchant boolean, p_store boolean, p_account boolean, p_authenticated boolean, p_total numeric,
    p_minimum bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN NOT p_automation THEN 'AUTOMATION_OFF'                 -- L30
        WHEN NOT p_merchant THEN 'MERCHANT_NOT_VALIDATED'           -- L52
        WHEN NOT p_store THEN 'STORE_NOT_VALIDATED'
        WHEN NOT p_account THEN 'NO_BANK_ACCOUNT'
        WHEN NOT p_authenticated THEN 'ACCOUNT_NOT_AUTHENTICATED'   -- L55
        WHEN p_total IS NULL THEN 'NOTHING_PENDING'
        WHEN p_total < 0 THEN 'NEGATIVE_TOTAL'                      -- L29
        WHEN p_total <= p_minimum THEN 'BELOW_MINIMUM'              -- L28
        ELSE 'PAY' END
$$;

-- Every store as a trigger would find it now. `verdict`: of a trigger that fires by itself; `verdict_by_hand`: of a person who
-- asks for the transfer, whom switched-off automation does not hinder.
CREATE VIEW disbursement.standing AS
    SELECT s.tenant_id, s.id AS store_id, s.merchant_id, s.frequency, s.currency, s.minimum_amount, s.manual_confirmation,
           a.clabe, a.holder_name, a.tax_id, p.updates, coalesce(p.total, 0) AS total,
           disbursement.verdict(m.automation, m.validated, s.validated, a.id IS NOT NULL, a.authenticated_at IS NOT NULL,
                                p.total, s.minimum_amount) AS verdict,
           disbursement.verdict(true, m.validated, s.validated, a.id IS NOT NULL, a.authenticated_at IS NOT NULL,
                                p.total, s.minimum_amount) AS verdict_by_hand
      FROM disbursement.store s
      JOIN disbursement.merchant m ON m.tenant_id = s.tenant_id AND m.id = s.merchant_id
      LEFT JOIN LATERAL (SELECT b.* FROM disbursement.bank_account b
                          WHERE b.tenant_id = s.tenant_id AND b.store_id = s.id ORDER BY b.id DESC LIMIT 1) a ON true
      CROSS JOIN LATERAL (SELECT count(*) AS updates, sum(u.effect) AS total FROM disbursement.balance_update u
                           WHERE u.tenant_id = s.tenant_id AND u.store_id = s.id AND u.status = 'PENDING') p;

-- Append an update to a store's chain and book it. The caller has locked the store's row: that is what keeps the chain
-- gapless. p_overwrites: the update it compensates, whose posting is mirrored, which the ledger does once only; otherwise the
-- posting legs run in parallel arrays, where `@` stands for the store's own account. That one is opened on first use.
-- Answers the ledger's refusal, if there is one, and the new row.
CREATE FUNCTION disbursement.append_update(
    p_tenant text, p_store text, p_type text, p_effect bigint, p_status text, p_overwrites bigint, p_credit text,
    p_transfer text, p_operation text, p_reason text, p_actor text, p_cause text, p_debits text[], p_credits text[],
    p_amounts bigint[], p_reference text, p_effective_at timestamptz,
    OUT refusal text, OUT detail text, OUT made disbursement.balance_update)
LANGUAGE plpgsql AS $$
DECLARE
    v_asset    text := 'MXN/2';
    v_account  text := 'store-payable:' || p_store;
    v_last     record;
    v_original record;
    v_effect   bigint := p_effect;
    v_answer   ledger.answer;
BEGIN
    SELECT u.seq, u.new INTO v_last FROM disbursement.balance_update u
     WHERE u.tenant_id = p_tenant AND u.store_id = p_store ORDER BY u.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        PERFORM 1 FROM ledger.book k JOIN ledger.chart c ON c.book_id = k.id AND c.kind = 'store-payable'
          WHERE k.code = p_tenant;
        IF NOT FOUND THEN
            refusal := 'account-unknown';
            detail := 'book';
            RETURN;
        END IF;
        INSERT INTO ledger.asset (code, scale) VALUES (v_asset, 2) ON CONFLICT DO NOTHING;
        PERFORM ledger.open_account(p_tenant, 'store-payable', 'store', p_store, v_asset);
    END IF;
    IF p_overwrites IS NULL THEN
        v_answer := ledger.post(
            p_tenant, 'store:' || p_operation, CASE p_type WHEN 'BALANCE_ADJUSTMENT' THEN 'adjust' ELSE 'post' END,
            array_replace(p_debits, '@', v_account), array_replace(p_credits, '@', v_account),
            array_fill(v_asset, ARRAY[cardinality(p_amounts)]), p_amounts, p_reference, p_reason, p_effective_at, p_actor,
            NULL);
    ELSE
        UPDATE disbursement.balance_update u SET overwritten = true -- L15
         WHERE u.id = p_overwrites AND NOT u.overwritten RETURNING u.effect, u.operation INTO STRICT v_original;
        v_effect := -v_original.effect;
        v_answer := ledger.reverse(p_tenant, 'store:' || v_original.operation, 'store:' || p_operation, p_reason, p_reference,
                                   p_effective_at, p_actor);
    END IF;
    IF v_answer.refusal IS NOT NULL THEN
        refusal := v_answer.refusal;
        detail := v_answer.detail;
        RETURN;
    END IF;
    INSERT INTO disbursement.balance_update (tenant_id, store_id, seq, type, effect, previous, new, status, overwrites,
                                             credit_id, transfer_id, txn_id, operation, reason, actor)
    VALUES (p_tenant, p_store, coalesce(v_last.seq, 0) + 1, p_type, v_effect, coalesce(v_last.new, 0),
            coalesce(v_last.new, 0) + v_effect, p_status, p_overwrites, p_credit, p_transfer, v_answer.txn_id, p_operation,
            p_reason, p_actor)
    RETURNING * INTO made; -- L3
    INSERT INTO disbursement.balance_update_status (update_id, status, cause, actor)
    VALUES (made.id, p_status, p_cause, p_actor); -- L13
END $$;
