-- What each instance runs, for people who watch a rollout. Instances of the version before do not fill it in.
ALTER TABLE boot ADD COLUMN version TEXT NOT NULL DEFAULT '';
