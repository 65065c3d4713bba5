-- +goose Up
-- How connections come to a node where others have the same service. Nodes that there are
-- go on as they did.

ALTER TABLE members ADD COLUMN weight   INTEGER NOT NULL DEFAULT 0; -- 0: the default
ALTER TABLE members ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
