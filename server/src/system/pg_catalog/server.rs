//! What belongs to the server and not to a relation: namespaces, roles, the database, settings, sessions.

use planner::Role;

use super::{BTREE, HEAP, NAMESPACES, OWNER, PG_CATALOG};
use crate::settings::display_name;
use crate::system::SystemRelations;
use crate::system::table::{Cell, Row};

pub(super) const DATABASE: i64 = 16_384;
const DEFAULT_TABLESPACE: i64 = 1663;

pub(super) fn rows(system: &SystemRelations, name: &str) -> Option<Vec<Row>> {
    Some(match name {
        "pg_namespace" => NAMESPACES
            .iter()
            .map(|(oid, name)| {
                vec![("oid", (*oid).into()), ("nspname", (*name).into()), ("nspowner", OWNER.into())]
            })
            .collect(),
        "pg_am" => vec![
            vec![
                ("oid", HEAP.into()),
                ("amname", "heap".into()),
                ("amtype", "t".into()),
                ("amhandler", "heap_tableam_handler".into()),
            ],
            vec![
                ("oid", BTREE.into()),
                ("amname", "btree".into()),
                ("amtype", "i".into()),
                ("amhandler", "bthandler".into()),
            ],
        ],
        "pg_roles" | "pg_authid" => system.access().roles().map(role).collect(),
        "pg_user" | "pg_shadow" => system.access().roles().filter(|role| role.login).map(role).collect(),
        "pg_auth_members" => members(system),
        "pg_database" => vec![database()],
        "pg_tablespace" => vec![tablespace(DEFAULT_TABLESPACE, "pg_default"), tablespace(1664, "pg_global")],
        "pg_settings" => settings(system),
        "pg_collation" => vec![collation(100, "default", "d"), collation(950, "C", "c")],
        "pg_timezone_names" => vec![vec![
            ("name", "UTC".into()),
            ("abbrev", "UTC".into()),
            ("utc_offset", "00:00:00".into()),
            ("is_dst", false.into()),
        ]],
        "pg_stat_activity" => {
            system.shared.sessions.list().iter().map(|info| session(system, info)).collect()
        }
        "pg_stat_database" => vec![vec![
            ("datid", DATABASE.into()),
            ("datname", "millpond".into()),
            ("numbackends", (system.shared.sessions.list().len() as u64).into()),
            ("xact_commit", system.snapshot.epoch.into()),
            ("xact_rollback", 0.into()),
        ]],
        _ => return None,
    })
}

fn role(role: &Role) -> Row {
    let id = i64::from(role.id);
    // Nobody is shown what a password is held against.
    let password = role.verifier.as_ref().map(|_| "********".to_owned());
    let mut row: Row = vec![
        ("oid", id.into()),
        ("rolname", role.name.clone().into()),
        ("rolconnlimit", (-1).into()),
        ("rolpassword", "********".into()),
        ("rolinherit", true.into()),
        ("rolcreaterole", (role.create_role || role.superuser).into()),
        ("rolcanlogin", role.login.into()),
        ("rolreplication", false.into()),
        ("usename", role.name.clone().into()),
        ("usesysid", id.into()),
        ("userepl", false.into()),
        ("passwd", password.into()),
    ];
    let of_superusers =
        ["rolsuper", "rolcreatedb", "rolbypassrls", "usesuper", "usecreatedb", "usebypassrls"];
    row.extend(of_superusers.map(|flag| (flag, role.superuser.into())));
    row
}

/// Which role is a member of which.
fn members(system: &SystemRelations) -> Vec<Row> {
    let access = system.access();
    let of = |role: &Role| -> Vec<Row> {
        let groups = role.member_of.iter().filter_map(|name| access.role(name));
        let row = |group: &Role| -> Row {
            vec![
                ("roleid", i64::from(group.id).into()),
                ("member", i64::from(role.id).into()),
                ("grantor", OWNER.into()),
                ("admin_option", false.into()),
            ]
        };
        groups.map(row).collect()
    };
    access.roles().flat_map(of).collect()
}

fn database() -> Row {
    vec![
        ("oid", DATABASE.into()),
        ("datname", "millpond".into()),
        ("datdba", OWNER.into()),
        ("encoding", 6.into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", DEFAULT_TABLESPACE.into()),
        ("datcollate", "C.UTF-8".into()),
        ("datctype", "C.UTF-8".into()),
    ]
}

fn tablespace(oid: i64, name: &str) -> Row {
    vec![("oid", oid.into()), ("spcname", name.into()), ("spcowner", OWNER.into())]
}

fn collation(oid: i64, name: &str, provider: &str) -> Row {
    let own = (provider != "d").then_some(name);
    vec![
        ("oid", oid.into()),
        ("collname", name.into()),
        ("collnamespace", PG_CATALOG.into()),
        ("collowner", OWNER.into()),
        ("collprovider", provider.into()),
        ("collisdeterministic", true.into()),
        ("collencoding", (-1).into()),
        ("collcollate", own.into()),
        ("collctype", own.into()),
    ]
}

fn settings(system: &SystemRelations) -> Vec<Row> {
    let setting = |(s, value): (&crate::settings::Setting, String)| -> Row {
        let source = if value == s.default { "default" } else { "session" };
        let shown = matches!(s.name, "application_name" | "client_encoding");
        vec![
            ("name", display_name(s.name).into()),
            ("category", "Client Connection Defaults".into()),
            ("short_desc", s.doc.into()),
            ("context", if s.is_fixed() { "internal" } else { "user" }.into()),
            ("vartype", "string".into()),
            ("source", if shown { "client" } else { source }.into()),
            ("boot_val", if s.name == "client_encoding" { "SQL_ASCII" } else { s.default }.into()),
            ("reset_val", s.default.into()),
            ("setting", value.into()),
            ("pending_restart", false.into()),
        ]
    };
    system.settings.all().map(setting).collect()
}

fn session(system: &SystemRelations, session: &crate::session::SessionInfo) -> Row {
    let access = system.access();
    let id = access.role(&session.user).map_or(OWNER, |role| i64::from(role.id));
    let shown = access.is_member(&system.role, &session.user);
    let query = if shown { session.query.clone() } else { "<insufficient privilege>".to_owned() };
    let micros = |ms: i64| Cell::Number(ms.saturating_mul(1000));
    vec![
        ("datid", DATABASE.into()),
        ("datname", "millpond".into()),
        ("pid", session.pid.into()),
        ("usesysid", id.into()),
        ("usename", session.user.clone().into()),
        ("application_name", session.application.clone().into()),
        ("client_addr", session.address.clone().into()),
        ("backend_start", micros(session.began_ms)),
        ("state", if session.busy { "active" } else { "idle" }.into()),
        ("query", query.into()),
        ("query_start", session.query_ms.map_or(Cell::None, micros)),
        ("state_change", session.query_ms.map_or(Cell::None, micros)),
        ("backend_type", "client backend".into()),
    ]
}

/// Words that mean something where a statement is read.
pub(super) fn keywords() -> Vec<Row> {
    use sql::sqlparser::keywords::{ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS};
    ALL_KEYWORDS
        .iter()
        .zip(ALL_KEYWORDS_INDEX)
        .map(|(word, keyword)| -> Row {
            let reserved = RESERVED_FOR_COLUMN_ALIAS.contains(keyword);
            vec![
                ("word", word.to_lowercase().into()),
                ("catcode", if reserved { "R" } else { "U" }.into()),
                ("barelabel", (!reserved).into()),
                ("catdesc", if reserved { "reserved" } else { "unreserved" }.into()),
                ("baredesc", if reserved { "requires AS" } else { "can be bare label" }.into()),
            ]
        })
        .collect()
}
