-- q0: pass through
SELECT auction, bidder, price, channel, date_time FROM bid
-- q1: convert a currency
SELECT auction, bidder, 0.908 * price AS price, date_time FROM bid
-- q2: choose some auctions
SELECT auction, price FROM bid WHERE auction % 123 = 0
-- q3: who sells in some states
SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
-- q4: average closing price of a category
SELECT category, avg(final) AS average FROM (
  SELECT a.id, a.category, max(b.price) AS final FROM auction a JOIN bid b ON a.id = b.auction
  WHERE b.date_time BETWEEN a.date_time AND a.expires GROUP BY a.id, a.category) AS closed GROUP BY category
-- q5: auctions with the most bids of each window
SELECT c.auction, c.num, c.window_start FROM (
  SELECT auction, window_start, window_end, count(*) AS num
  FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY auction, window_start, window_end) AS c
JOIN (SELECT window_start, max(num) AS most FROM (
  SELECT auction, window_start, window_end, count(*) AS num
  FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY auction, window_start, window_end) AS d
  GROUP BY window_start) AS m ON c.window_start = m.window_start AND c.num = m.most
-- q7: highest bids of each window
SELECT b.auction, b.price, b.bidder, b.date_time FROM bid b JOIN (
  SELECT max(price) AS highest, window_end FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start, window_end) AS m
  ON b.price = m.highest WHERE b.date_time >= m.window_end - INTERVAL '10 seconds' AND b.date_time < m.window_end
-- q8: who opens auctions in the window of joining
SELECT p.id, p.name, p.window_start FROM (
  SELECT id, name, window_start FROM TUMBLE(person, date_time, INTERVAL '10 seconds') GROUP BY id, name, window_start, window_end) AS p
JOIN (SELECT seller, window_start FROM TUMBLE(auction, date_time, INTERVAL '10 seconds') GROUP BY seller, window_start, window_end) AS a
  ON p.id = a.seller AND p.window_start = a.window_start
-- q9: winning bid of each auction
SELECT id, bidder, price FROM (
  SELECT a.id, b.bidder, b.price, row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder) AS place
  FROM auction a JOIN bid b ON a.id = b.auction WHERE b.date_time BETWEEN a.date_time AND a.expires) AS ranked WHERE place <= 1
-- q11: bids of each session of a bidder
SELECT bidder, count(*) AS bids, window_start FROM SESSION(bid, date_time, INTERVAL '10 seconds', bidder)
GROUP BY bidder, window_start, window_end
-- q12: bids of a bidder in each window
SELECT bidder, count(*) AS bids, window_start FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
-- q13: join a table
SELECT b.auction, b.bidder, b.price, s.value FROM bid b JOIN side s ON b.auction % 1000 = s.key
-- q14: calculate and filter
SELECT auction, bidder, 0.908 * price AS price,
  CASE WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'day' ELSE 'night' END AS part, length(url) AS n
FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
-- q15: distinct bidders and auctions of a day
SELECT date_trunc('day', date_time) AS day, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS low,
  count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS low_bidders,
  count(DISTINCT auction) AS auctions, count(DISTINCT auction) FILTER (WHERE price >= 10000) AS high_auctions
FROM bid GROUP BY date_trunc('day', date_time)
-- q16: distinct bidders and auctions of a channel and day
SELECT channel, date_trunc('day', date_time) AS day, count(*) AS bids, count(DISTINCT bidder) AS bidders,
  count(DISTINCT bidder) FILTER (WHERE price < 10000) AS low_bidders,
  count(DISTINCT bidder) FILTER (WHERE price >= 10000) AS high_bidders, count(DISTINCT auction) AS auctions,
  count(DISTINCT auction) FILTER (WHERE price < 10000) AS low_auctions,
  count(DISTINCT auction) FILTER (WHERE price >= 10000) AS high_auctions
FROM bid GROUP BY channel, date_trunc('day', date_time)
-- q17: statistics of an auction and day
SELECT auction, date_trunc('day', date_time) AS day, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS low,
  min(price) AS least, max(price) AS most, avg(price) AS average, sum(price) AS total
FROM bid GROUP BY auction, date_trunc('day', date_time)
-- q18: last bid of a bidder on an auction
SELECT auction, bidder, price, date_time FROM (
  SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC) AS place FROM bid) AS ranked
WHERE place <= 1
-- q19: ten highest bids of an auction
SELECT auction, bidder, price, place FROM (
  SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS place FROM bid) AS ranked
WHERE place <= 10
-- q20: bids with their auctions
SELECT b.auction, b.bidder, b.price, b.channel, b.url, a.item_name, a.seller, a.category
FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10
-- q21: channel numbers out of addresses
SELECT auction, bidder, price, coalesce((regexp_match(url, 'channel_id=([0-9]+)'))[1], lower(channel)) AS channel_id FROM bid
WHERE (regexp_match(url, 'channel_id=([0-9]+)')) IS NOT NULL OR lower(channel) IN ('apple', 'google')
-- q22: directories of addresses
SELECT auction, bidder, price, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2 FROM bid
