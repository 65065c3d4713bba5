-- +goose Up
-- How much each node takes of what others serve, too. Nodes that there are go on as they
-- did.

ALTER TABLE members ADD COLUMN weight INTEGER NOT NULL DEFAULT 0; -- 0: the default
