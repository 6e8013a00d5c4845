-- What an append reads it finds by a key, also where a table is nearly empty. `hold` is empty whenever nobody calls: a plan
-- made at such a moment reads it whole, is kept by the session, and gets slower with each row that comes and goes (measured:
-- a seventh of the throughput half a minute after a vacuum).
ALTER FUNCTION tappass_append_v1 SET enable_seqscan = off;
ALTER FUNCTION tappass_change_v1 SET enable_seqscan = off;

-- A call is a row that comes and goes: cleaned after a number of them, not after a share of a table that is empty; and never
-- shortened, since that locks everybody out.
ALTER TABLE hold SET (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
