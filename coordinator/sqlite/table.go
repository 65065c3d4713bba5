package sqlite

import (
	"context"
	"database/sql"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern/coordinator"
)

// A schema is how rows of type V, with keys of type K, lie in a table.
type schema[K, V any] struct {
	table                         string
	columns                       []string       // the first ones are the key
	keys                          int            // how many; zero: 1
	key                           func(K) []any  // as values of its columns
	fields                        func(*V) []any // pointers for Scan, in the columns' order
	values                        func(*V) []any // for the statement's parameters, in the columns' order
	get, all, in, of, put, remove string         // statements, see prepared
}

// prepared returns s with its statements written.
func (s schema[K, V]) prepared() *schema[K, V] {
	keys := s.columns[:max(1, s.keys)]
	key, list := strings.Join(keys, ", "), strings.Join(s.columns, ", ")
	var set []string
	for _, c := range s.columns[len(keys):] {
		set = append(set, c+" = excluded."+c)
	}
	update := "NOTHING"
	if len(set) > 0 {
		update = "UPDATE SET " + strings.Join(set, ", ")
	}
	match := strings.Join(keys, " = ? AND ") + " = ?"
	s.all = fmt.Sprintf("SELECT %s FROM %s ORDER BY %s", list, s.table, key)
	s.get = s.where(match)
	s.in = s.where("tenant IS ? ORDER BY " + key)
	s.of = s.where("user = ? ORDER BY " + key)
	s.put = fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s) ON CONFLICT (%s) DO %s",
		s.table, list, strings.Repeat(", ?", len(s.columns)-1), key, update)
	s.remove = fmt.Sprintf("DELETE FROM %s WHERE %s", s.table, match)
	return &s
}

// where returns the statement that gives the rows for which condition holds.
func (s *schema[K, V]) where(condition string) string {
	return fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(s.columns, ", "), s.table, condition)
}

// A table is a schema in a transaction.
type table[K, V any] struct {
	tx
	*schema[K, V]
}

func (t table[K, V]) Get(key K) (V, error) { return t.one(t.get, t.key(key)...) }

func (t table[K, V]) All() ([]V, error) { return t.many(t.all) }

func (t table[K, V]) In(tenant string) ([]V, error) { return t.many(t.in, orNull(tenant)) }

func (t table[K, V]) Of(user string) ([]V, error) { return t.many(t.of, user) }

func (t table[K, V]) Put(v V) error {
	if _, err := t.ExecContext(t.ctx, t.put, t.values(&v)...); err != nil {
		return fmt.Errorf("put into %s: %w", t.table, err)
	}
	return nil
}

func (t table[K, V]) Delete(key K) error {
	result, err := t.ExecContext(t.ctx, t.remove, t.key(key)...)
	if err != nil {
		return fmt.Errorf("delete from %s: %w", t.table, err)
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return fmt.Errorf("%s: %w", t.table, coordinator.ErrNotFound)
}

// one returns the row that query gives for args.
func (t table[K, V]) one(query string, args ...any) (V, error) {
	var v V
	err := t.QueryRowContext(t.ctx, query, args...).Scan(t.fields(&v)...)
	if errors.Is(err, sql.ErrNoRows) {
		err = coordinator.ErrNotFound
	}
	if err != nil {
		return v, fmt.Errorf("get from %s: %w", t.table, err)
	}
	return v, nil
}

// many returns all rows that query gives.
func (t table[K, V]) many(query string, args ...any) ([]V, error) {
	rows, err := t.QueryContext(t.ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t.table, err)
	}
	defer rows.Close()
	var all []V
	for rows.Next() {
		var v V
		if err := rows.Scan(t.fields(&v)...); err != nil {
			return nil, fmt.Errorf("list %s: %w", t.table, err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", t.table, err)
	}
	return all, nil
}

// A tx is one transaction.
type tx struct {
	ctx context.Context
	*sql.Tx
}

// Columns of other types than SQL's.

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// timeField reads what nanos made.
type timeField struct{ *time.Time }

func (f timeField) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("a time is %T", v)
	}
	*f.Time = time.Time{}
	if n != 0 {
		*f.Time = time.Unix(0, n).UTC()
	}
	return nil
}

func text(v encoding.TextMarshaler) any {
	b, err := v.MarshalText()
	if err != nil {
		panic(fmt.Sprintf("sqlite: %T has no text: %v", v, err))
	}
	return string(b)
}

// textField reads what text made.
type textField struct{ encoding.TextUnmarshaler }

func (f textField) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a text is %T", v)
	}
	return f.UnmarshalText([]byte(s))
}

func jsonText(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sqlite: %T has no JSON: %v", v, err))
	}
	return string(b)
}

// jsonField reads what jsonText made.
type jsonField struct{ v any }

func (f jsonField) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a JSON text is %T", v)
	}
	return json.Unmarshal([]byte(s), f.v)
}

// orNull is s, or NULL if it is empty: the tenant of what belongs to none.
func orNull(s string) any { return sql.NullString{String: s, Valid: s != ""} }

// emptyField reads what orNull made.
type emptyField struct{ s *string }

func (f emptyField) Scan(v any) error {
	*f.s, _ = v.(string)
	return nil
}
