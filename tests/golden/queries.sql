SELECT id, b, small, big, r, d, n, t, v, by, day, tod, ts, tz, u, j, jb, l, m, s FROM types ORDER BY id
SELECT a, b FROM loose ORDER BY a, b
SELECT * FROM items ORDER BY id
SELECT item, n, total, least, most, mean, amounts, ids, dev FROM per_item ORDER BY item
SELECT * FROM named ORDER BY name
SELECT windowstart, item, n FROM per_minute ORDER BY windowstart, item
SELECT * FROM visits ORDER BY item, window_start
SELECT * FROM best ORDER BY id
SELECT * FROM best_of_each ORDER BY item
SELECT * FROM ranked ORDER BY id
SELECT * FROM unsold ORDER BY id
SELECT * FROM dear ORDER BY id
SELECT * FROM matched ORDER BY sale, click
SELECT * FROM plain ORDER BY name
SELECT relation, state FROM millpond.queries ORDER BY relation
SELECT n FROM made_late
SELECT a, b FROM lines ORDER BY a
SELECT id, v FROM keyed ORDER BY id
SELECT relation, count(*) FROM millpond.rejects GROUP BY relation ORDER BY relation
SELECT has_table_privilege('reader', 'per_item', 'select'), has_table_privilege('reader', 'items', 'select')
