-- What is old enough is deleted a batch at a time: these answer which rows that is.
CREATE INDEX operations_ended ON operations (ended_ms);
CREATE INDEX audit_at ON audit (at_ms);
