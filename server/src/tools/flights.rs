//! Real events: every flight out of New York in January 2013, with airlines, airports, planes, weather.
//!
//! Source: nycflights13 (CC0), from the US Bureau of Transportation Statistics.

use std::io::Read;

use flate2::read::GzDecoder;

/// A file of the data set: the relation it goes to, and its bytes.
pub struct File {
    /// Name of the relation.
    pub relation: &'static str,
    compressed: &'static [u8],
}

/// What changes seldom, loaded first.
pub const TABLES: [File; 4] = [
    File { relation: "airlines", compressed: include_bytes!("../../data/airlines.csv.gz") },
    File { relation: "airports", compressed: include_bytes!("../../data/airports.csv.gz") },
    File { relation: "planes", compressed: include_bytes!("../../data/planes.csv.gz") },
    File { relation: "weather", compressed: include_bytes!("../../data/weather-2013-01.csv.gz") },
];

/// The events, in the order they happened.
pub const FLIGHTS: File =
    File { relation: "flights", compressed: include_bytes!("../../data/flights-2013-01.csv.gz") };

impl File {
    /// The CSV text, header first.
    ///
    /// # Errors
    /// Only if the program itself is damaged.
    pub fn text(&self) -> std::io::Result<String> {
        let mut text = String::new();
        GzDecoder::new(self.compressed).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// How every file is copied in: empty values are written NA.
pub const COPY_OPTIONS: &str = "WITH (FORMAT csv, HEADER, NULL 'NA')";

/// Relations that are written to.
pub const RELATIONS: [&str; 5] = [
    "CREATE TABLE airlines (carrier TEXT PRIMARY KEY, name TEXT NOT NULL)",
    "CREATE TABLE airports (faa TEXT PRIMARY KEY, name TEXT, lat DOUBLE PRECISION, lon DOUBLE PRECISION, \
     alt INT, tz INT, dst TEXT, tzone TEXT)",
    "CREATE TABLE planes (tailnum TEXT PRIMARY KEY, year INT, type TEXT, manufacturer TEXT, model TEXT, \
     engines INT, seats INT, speed INT, engine TEXT)",
    "CREATE TABLE weather (origin TEXT, year INT, month INT, day INT, hour INT, temp DOUBLE PRECISION, \
     dewp DOUBLE PRECISION, humid DOUBLE PRECISION, wind_dir INT, wind_speed DOUBLE PRECISION, \
     wind_gust DOUBLE PRECISION, precip DOUBLE PRECISION, pressure DOUBLE PRECISION, visib DOUBLE PRECISION, \
     time_hour TIMESTAMP)",
    FLIGHTS_STREAM,
];

/// The stream of flights; its 19 columns are the file's.
pub const FLIGHTS_STREAM: &str = "CREATE STREAM flights (year INT, month INT, day INT, dep_time INT, sched_dep_time INT, \
     dep_delay DOUBLE PRECISION, arr_time INT, sched_arr_time INT, arr_delay DOUBLE PRECISION, carrier TEXT, flight INT, \
     tailnum TEXT, origin TEXT, dest TEXT, air_time DOUBLE PRECISION, distance DOUBLE PRECISION, hour INT, minute INT, \
     time_hour TIMESTAMP) WITH (timestamp = 'time_hour')";

/// A view of the demo and a question that shows it.
pub struct View {
    /// What it shows.
    pub title: &'static str,
    /// The statement that makes it.
    pub create: &'static str,
    /// The question.
    pub show: &'static str,
}

/// The live views.
pub const VIEWS: [View; 5] = [
    View {
        title: "Airlines by mean arrival delay",
        create: "CREATE MATERIALIZED VIEW airline_delays AS \
                 SELECT a.name AS airline, count(*) AS flights, avg(f.arr_delay) AS mean_delay, max(f.arr_delay) AS worst \
                 FROM flights f JOIN airlines a ON f.carrier = a.carrier GROUP BY a.name",
        show: "SELECT airline, flights, round(mean_delay, 1) AS mean_delay, worst FROM airline_delays \
               ORDER BY mean_delay DESC, airline LIMIT 8",
    },
    View {
        title: "Departures by airport and hour",
        create: "CREATE TABLE departures AS SELECT origin, count(*) AS flights, sum(dep_delay) AS delay, \
                 min(dep_delay) AS earliest, max(dep_delay) AS latest \
                 FROM flights WINDOW TUMBLING (SIZE 1 HOUR, GRACE PERIOD 2 DAYS) GROUP BY origin EMIT CHANGES",
        show: "SELECT origin, to_timestamp_millis(windowstart) AS hour, flights, latest FROM departures \
               ORDER BY windowstart DESC, origin LIMIT 6",
    },
    View {
        title: "Busiest three hours",
        create: "CREATE MATERIALIZED VIEW rush AS SELECT origin, window_start, count(*) AS flights \
                 FROM HOP(flights, time_hour, INTERVAL '1 hour', INTERVAL '3 hours') \
                 GROUP BY origin, window_start, window_end",
        show: "SELECT origin, window_start, flights FROM rush ORDER BY flights DESC, window_start, origin LIMIT 5",
    },
    View {
        title: "Long flights, as they leave",
        create: "CREATE STREAM long_haul AS SELECT f.carrier, f.flight, f.origin, p.name AS destination, f.distance \
                 FROM flights f JOIN airports p ON f.dest = p.faa WHERE f.distance > 2500",
        show: "SELECT destination, count(*) AS flights, max(distance) AS miles FROM long_haul \
               GROUP BY destination ORDER BY flights DESC, destination LIMIT 5",
    },
    View {
        title: "Airports over all hours",
        create: "CREATE MATERIALIZED VIEW airport_totals AS SELECT origin, sum(flights) AS flights, max(latest) AS latest \
                 FROM departures GROUP BY origin",
        show: "SELECT origin, flights, latest FROM airport_totals ORDER BY origin",
    },
];
