-- +goose Up
-- Gateways and nodes that an operator drains, which gateways were fit for DNS last, and how
-- much each node takes of what others serve, too. What there is goes on as it did.

ALTER TABLE members ADD COLUMN draining INTEGER NOT NULL DEFAULT 0; -- 1: by an operator
ALTER TABLE members ADD COLUMN weight INTEGER NOT NULL DEFAULT 0; -- 0: the default
ALTER TABLE deployment ADD COLUMN fit TEXT NOT NULL DEFAULT '[]'; -- ids of gateways, JSON
