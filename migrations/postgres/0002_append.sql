-- Appending, in one round trip. The rules are those of `admission` (src/admission/append.rs is the same for the embedded
-- database, and a property compares the two). A function is never replaced: a newer one gets a newer name, so that
-- instances of the version before go on calling theirs.

-- What a window is called now: `{day}` and `{month}` by the database's clock, in UTC.
CREATE FUNCTION tappass_window(template TEXT) RETURNS TEXT LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN position('{' IN template) = 0 THEN template ELSE
        replace(replace(template, '{day}', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
                '{month}', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM')) END
$$;

-- A sum that stops at the ends of the type, like those of the embedded database: an absurd amount is refused by a
-- budget and never an error, which would fail its batch.
CREATE FUNCTION tappass_plus(a BIGINT, b BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN b > 0 AND a > 9223372036854775807 - b THEN 9223372036854775807
                WHEN b < 0 AND a < '-9223372036854775808'::BIGINT - b THEN '-9223372036854775808'::BIGINT
                ELSE a + b END
$$;

-- Whether the chain is still the one whose entry `seen_seq` had `seen_link` (rule 24).
CREATE FUNCTION tappass_is_same_chain(org TEXT, head_seq BIGINT, head_link BYTEA, seen_seq BIGINT, seen_link BYTEA)
RETURNS BOOLEAN LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN seen_seq = 0 THEN true
        WHEN seen_seq > head_seq THEN false
        WHEN seen_seq = head_seq THEN seen_link = head_link
        ELSE coalesce((SELECT e.link = seen_link FROM audit_entry e WHERE e.org_id = org AND e.seq = seen_seq), true) END
$$;

-- Appends groups of items, one group per chain, groups in order of `g_org` and items in order of their groups.
--
-- `p_wait`: wait for heads that are locked (up to lock_timeout), else skip them and answer `busy` for their items.
-- `i_what`: 0 plain, 1 refusal, 2 admission, 3 completion, 4 extension, 5 late. `i_amount`: what an admission or extension
-- reserves, what a completion settles, by how much `late` corrects. `i_until`: when the decision ends, 0 never.
-- `w_*`: the windows of all items in order, `i_windows` of each.
--
-- Answers a row per item (`item` from 1: its verdict; `detail`: the kind of the entry that has its id, or the windows that an
-- admission holds; `room`: what is left where it is `short`) and one per group (`item` 0, `grp`: the head after it).
CREATE FUNCTION tappass_append_v1(
    p_wait BOOLEAN,
    g_org TEXT[], g_boot TEXT[], g_items INT[], g_number BIGINT[], g_message BYTEA[], g_kid TEXT[], g_signature BYTEA[],
    g_seen_seq BIGINT[], g_seen_link BYTEA[],
    i_counter BIGINT[], i_kind TEXT[], i_body TEXT[], i_digest BYTEA[], i_what INT[], i_maybe BOOLEAN[],
    i_version BIGINT[], i_tag BYTEA[], i_config BYTEA[], i_amount BIGINT[], i_until BIGINT[],
    i_boot TEXT[], i_target BIGINT[], i_windows INT[],
    w_name TEXT[], w_limit BIGINT[]
) RETURNS TABLE (item INT, grp INT, verdict TEXT, detail TEXT, room BIGINT, seq BIGINT, link BYTEA)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
    locked TEXT[];
    h audit_head%ROWTYPE;
    zero BYTEA := decode(repeat('00', 32), 'hex');
    is_locked BOOLEAN;
    is_open BOOLEAN;
    is_same BOOLEAN;
    i INT := 0;             -- the last item that was judged
    w INT := 0;             -- the last window that was read
    last INT;
    v TEXT;
    d TEXT;
    r BIGINT;
    taken BIGINT;
    most BIGINT;
    place INT;              -- of a window among the sums
    names TEXT[];           -- the windows of one item
    limits BIGINT[];
    s_name TEXT[];          -- the sums of the group's windows
    s_settled BIGINT[];
    s_held BIGINT[];
    was_settled BIGINT;
    was_held BIGINT;
    n_item INT[];           -- what is stored, in order
    n_seq BIGINT[];
    n_link BYTEA[];
    unwritten BIGINT[];
    held hold%ROWTYPE;
BEGIN
    -- A chain that has not begun gets its head; nobody waits for anybody here but for the same beginning.
    IF 0 = ANY (g_seen_seq) THEN
        INSERT INTO audit_head (org_id, seq, link, config_version, config_tag, config_digest, kid)
        SELECT n.org, 0, zero, 0, zero, zero, n.kid FROM unnest(g_org, g_seen_seq, g_kid) AS n (org, seen, kid)
        WHERE n.seen = 0 AND NOT EXISTS (SELECT 1 FROM audit_head a WHERE a.org_id = n.org)
        ORDER BY n.org COLLATE "C" ON CONFLICT (org_id) DO NOTHING;
    END IF;
    -- Heads first, in order, in a statement of its own; everything is read after it.
    IF p_wait THEN
        SELECT array_agg(l.org_id) INTO locked FROM
            (SELECT a.org_id FROM audit_head a WHERE a.org_id = ANY (g_org) ORDER BY a.org_id FOR NO KEY UPDATE) l;
    ELSE
        SELECT array_agg(l.org_id) INTO locked FROM
            (SELECT a.org_id FROM audit_head a WHERE a.org_id = ANY (g_org) ORDER BY a.org_id
             FOR NO KEY UPDATE SKIP LOCKED) l;
    END IF;
    FOR g IN 1 .. cardinality(g_org) LOOP
        last := i + g_items[g];
        is_locked := coalesce(g_org[g] = ANY (locked), false);
        IF NOT is_locked AND NOT p_wait AND EXISTS (SELECT 1 FROM audit_head a WHERE a.org_id = g_org[g]) THEN
            WHILE i < last LOOP
                i := i + 1;
                w := w + i_windows[i];
                item := i; grp := g; verdict := 'busy'; detail := NULL; room := NULL; seq := NULL; link := NULL;
                RETURN NEXT;
            END LOOP;
            CONTINUE;
        END IF;
        IF is_locked THEN
            SELECT * INTO h FROM audit_head a WHERE a.org_id = g_org[g];
        ELSE
            -- It had begun, as far as this boot knows: nothing of it is left.
            h.seq := 0; h.link := zero;
        END IF;
        SELECT b.closed = 0 INTO is_open FROM boot b WHERE b.id = g_boot[g];
        is_open := coalesce(is_open, false);
        is_same := tappass_is_same_chain(g_org[g], h.seq, h.link, g_seen_seq[g], g_seen_link[g]);
        s_name := '{}'; s_settled := '{}'; s_held := '{}';
        n_item := '{}'; n_seq := '{}'; n_link := '{}'; unwritten := '{}';
        WHILE i < last LOOP
            i := i + 1;
            v := 'stored'; d := NULL; r := NULL; names := NULL; limits := NULL;
            IF i_maybe[i] THEN
                SELECT e.kind INTO d FROM audit_entry e
                WHERE e.org_id = g_org[g] AND e.boot = g_boot[g] AND e.counter = i_counter[i];
            END IF;
            IF d IS NOT NULL THEN
                v := 'taken';
            ELSIF NOT is_open THEN
                v := 'fenced';
            ELSIF NOT is_same THEN
                v := 'history_lost';
            ELSIF i_what[i] IN (1, 2) AND (h.config_version <> i_version[i] OR h.config_tag <> i_tag[i]
                    OR h.config_digest <> i_config[i]) THEN
                v := 'stale';
            ELSIF i_what[i] = 2 AND i_until[i] > 0 AND i_until[i] <= tappass_now() THEN
                v := 'expired';
            ELSIF i_what[i] = 2 THEN
                -- Without a window it is a hold too: its completion looks for it.
                names := '{}'; limits := '{}';
                FOR k IN 1 .. i_windows[i] LOOP
                    names[k] := tappass_window(w_name[w + k]);
                    limits[k] := w_limit[w + k];
                END LOOP;
            ELSIF i_what[i] = 3 THEN
                DELETE FROM hold o WHERE o.org_id = g_org[g] AND o.boot = i_boot[i] AND o.counter = i_target[i]
                RETURNING * INTO held;
                IF NOT FOUND THEN v := 'not_open'; ELSE names := held.windows; END IF;
            ELSIF i_what[i] = 4 THEN
                SELECT * INTO held FROM hold o
                WHERE o.org_id = g_org[g] AND o.boot = i_boot[i] AND o.counter = i_target[i];
                IF NOT FOUND THEN v := 'not_open'; ELSE names := held.windows; limits := held.limits; END IF;
            ELSIF i_what[i] = 5 THEN
                names := w_name[w + 1 : w + i_windows[i]];
            END IF;
            -- The sums of its windows, each read once, under the lock.
            IF v = 'stored' AND names IS NOT NULL THEN
                FOR k IN 1 .. cardinality(names) LOOP
                    place := array_position(s_name, names[k]);
                    IF place IS NULL THEN
                        s_name := s_name || names[k];
                        place := array_length(s_name, 1);
                        SELECT p.settled_nano, p.held_nano INTO was_settled, was_held FROM spending p
                        WHERE p.org_id = g_org[g] AND p.spending_window = names[k];
                        s_settled[place] := coalesce(was_settled, 0);
                        s_held[place] := coalesce(was_held, 0);
                    END IF;
                    IF i_what[i] IN (2, 4) THEN
                        taken := tappass_plus(s_settled[place], s_held[place]);
                        most := coalesce(limits[k], 9223372036854775807);
                        -- Also where a sum would not be a number any more.
                        IF tappass_plus(taken, i_amount[i]) > most
                                OR greatest(taken, s_held[place]) > 9223372036854775807 - greatest(i_amount[i], 0) THEN
                            v := 'short';
                            r := least(r, greatest(tappass_plus(most, -greatest(taken, -9223372036854775807)), 0));
                        END IF;
                    END IF;
                END LOOP;
            END IF;
            IF v = 'stored' AND names IS NOT NULL THEN
                FOR k IN 1 .. cardinality(names) LOOP
                    place := array_position(s_name, names[k]);
                    IF i_what[i] IN (2, 4) THEN
                        s_held[place] := tappass_plus(s_held[place], i_amount[i]);
                    ELSIF i_what[i] = 3 THEN
                        s_held[place] := greatest(s_held[place] - held.amount_nano, 0);
                        s_settled[place] := tappass_plus(s_settled[place], i_amount[i]);
                    ELSE
                        s_settled[place] := tappass_plus(s_settled[place], i_amount[i]);
                    END IF;
                END LOOP;
                IF i_what[i] = 2 THEN
                    INSERT INTO hold (org_id, boot, counter, config_version, amount_nano, windows, limits)
                    VALUES (g_org[g], g_boot[g], i_counter[i], i_version[i], i_amount[i], names, limits);
                    d := array_to_string(names, ' ');
                ELSIF i_what[i] = 4 THEN
                    UPDATE hold o SET amount_nano = tappass_plus(o.amount_nano, i_amount[i])
                    WHERE o.org_id = g_org[g] AND o.boot = i_boot[i] AND o.counter = i_target[i];
                END IF;
            END IF;
            w := w + i_windows[i];
            IF v = 'stored' THEN
                h.seq := h.seq + 1;
                h.link := tappass_link(h.link, h.seq, i_digest[i]);
                n_item := n_item || i; n_seq := n_seq || h.seq; n_link := n_link || h.link;
            ELSE
                unwritten := unwritten || i_counter[i];
            END IF;
            item := i; grp := g; verdict := v; detail := d; room := r; seq := h.seq; link := NULL;
            RETURN NEXT;
        END LOOP;
        INSERT INTO audit_batch (org_id, boot, number, message, kid, signature, unwritten)
        VALUES (g_org[g], g_boot[g], g_number[g], g_message[g], g_kid[g], g_signature[g],
                '[' || coalesce((SELECT string_agg(u.c::TEXT, ',' ORDER BY u.c) FROM unnest(unwritten) u (c)), '') || ']');
        IF array_length(n_item, 1) > 0 THEN
            INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link)
            SELECT g_org[g], n.s, g_boot[g], i_counter[n.i], i_kind[n.i], i_body[n.i], i_digest[n.i], n.l
            FROM unnest(n_item, n_seq, n_link) AS n (i, s, l);
            INSERT INTO spending (org_id, spending_window, settled_nano, held_nano)
            SELECT g_org[g], s.n, s.s, s.h FROM unnest(s_name, s_settled, s_held) AS s (n, s, h)
            ON CONFLICT (org_id, spending_window) DO UPDATE
            SET settled_nano = excluded.settled_nano, held_nano = excluded.held_nano;
            UPDATE audit_head a SET seq = h.seq, link = h.link, kid = g_kid[g] WHERE a.org_id = g_org[g];
        END IF;
        item := 0; grp := g; verdict := 'head'; detail := NULL; room := NULL; seq := h.seq; link := h.link;
        RETURN NEXT;
    END LOOP;
END $$;

-- One change: validated against the stamp that its rows were computed from, written, linked, announced.
-- Verdicts: `stored`, `taken` (its id was stored before: by an attempt whose answer was lost), `fenced`, `stale`, `history_lost`.
CREATE FUNCTION tappass_change_v1(
    p_org TEXT, p_boot TEXT, p_counter BIGINT, p_kind TEXT, p_body TEXT, p_digest BYTEA,
    p_number BIGINT, p_message BYTEA, p_kid TEXT, p_signature BYTEA, p_seen_seq BIGINT, p_seen_link BYTEA,
    p_version BIGINT, p_tag BYTEA, p_config BYTEA, p_produced BYTEA,
    w_table TEXT[], w_id TEXT[], w_body TEXT[]
) RETURNS TABLE (verdict TEXT, seq BIGINT, link BYTEA)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
    h audit_head%ROWTYPE;
    is_open BOOLEAN;
    zero BYTEA := decode(repeat('00', 32), 'hex');
BEGIN
    INSERT INTO audit_head (org_id, seq, link, config_version, config_tag, config_digest, kid)
    SELECT p_org, 0, zero, 0, zero, zero, p_kid
    WHERE p_version = 0 AND NOT EXISTS (SELECT 1 FROM audit_head a WHERE a.org_id = p_org)
    ON CONFLICT (org_id) DO NOTHING;
    PERFORM 1 FROM audit_head a WHERE a.org_id = p_org FOR NO KEY UPDATE;
    SELECT * INTO h FROM audit_head a WHERE a.org_id = p_org;
    IF NOT FOUND THEN
        h.seq := 0; h.link := zero; h.config_version := 0; h.config_tag := zero; h.config_digest := zero;
    END IF;
    SELECT e.seq, e.link INTO seq, link FROM audit_entry e
    WHERE e.org_id = p_org AND e.boot = p_boot AND e.counter = p_counter;
    IF FOUND THEN
        verdict := 'taken'; RETURN NEXT; RETURN;
    END IF;
    SELECT b.closed = 0 INTO is_open FROM boot b WHERE b.id = p_boot;
    IF NOT coalesce(is_open, false) THEN
        verdict := 'fenced'; RETURN NEXT; RETURN;
    END IF;
    IF NOT tappass_is_same_chain(p_org, h.seq, h.link, p_seen_seq, p_seen_link) THEN
        verdict := 'history_lost'; RETURN NEXT; RETURN;
    END IF;
    IF h.config_version <> p_version OR h.config_tag <> p_tag OR h.config_digest <> p_config THEN
        verdict := 'stale'; RETURN NEXT; RETURN;
    END IF;
    FOR k IN 1 .. cardinality(w_table) LOOP
        IF w_table[k] NOT IN ('agent', 'agent_key', 'budget', 'organization', 'pipeline', 'policy', 'policy_assignment',
                              'policy_version', 'project', 'provider_credential') THEN
            RAISE EXCEPTION 'no configuration stands in table %', w_table[k];
        ELSIF w_body[k] IS NULL THEN
            EXECUTE format('DELETE FROM %I WHERE org_id = $1 AND id = $2', w_table[k]) USING p_org, w_id[k];
        ELSE
            EXECUTE format('INSERT INTO %I (org_id, id, body) VALUES ($1, $2, $3)
                            ON CONFLICT (org_id, id) DO UPDATE SET body = excluded.body', w_table[k])
            USING p_org, w_id[k], w_body[k];
        END IF;
    END LOOP;
    seq := h.seq + 1;
    link := tappass_link(h.link, seq, p_digest);
    INSERT INTO audit_batch (org_id, boot, number, message, kid, signature, unwritten)
    VALUES (p_org, p_boot, p_number, p_message, p_kid, p_signature, '[]');
    INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link)
    VALUES (p_org, seq, p_boot, p_counter, p_kind, p_body, p_digest, link);
    UPDATE audit_head a SET seq = seq, link = link, config_version = p_version + 1, config_tag = link,
        config_digest = p_produced, kid = p_kid WHERE a.org_id = p_org;
    -- A hint: who hears it loads early. Losing it costs one retry.
    PERFORM pg_notify('tappass_config', p_org);
    verdict := 'stored'; RETURN NEXT;
END $$;
