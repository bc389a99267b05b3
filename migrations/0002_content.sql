-- A hash of what the generation contains, as far as the declaration decides it. It is empty for
-- generations of before, which is the hash of none: they are numbered anew.
ALTER TABLE directors ADD COLUMN content TEXT NOT NULL DEFAULT '';
