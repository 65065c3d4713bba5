-- +goose Up
-- Gateways that an operator drains, and which were fit for DNS last.

ALTER TABLE members ADD COLUMN draining INTEGER NOT NULL DEFAULT 0; -- 1: by an operator
ALTER TABLE deployment ADD COLUMN fit TEXT NOT NULL DEFAULT '[]'; -- ids of gateways, JSON
