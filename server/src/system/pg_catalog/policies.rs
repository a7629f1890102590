//! `pg_policy` and `pg_policies`: who sees which rows of a relation.

use executor::Snapshot;
use planner::{Access, Grantee};

use super::objects::oid;
use crate::system::table::{Cell, Row};

/// The number that stands for PUBLIC.
const EVERYBODY: i64 = 0;

/// A row for each policy, with the columns of both.
pub(super) fn rows(snapshot: &Snapshot) -> Vec<Row> {
    let access = snapshot.catalog.access();
    let rows = access.policies().filter_map(|(relation, name, policy)| {
        let relation = snapshot.catalog.by_id(relation)?;
        let names = policy.to.iter().map(|to| to.clone().unwrap_or_else(|| "public".to_owned()));
        let kind = if policy.restrictive { "RESTRICTIVE" } else { "PERMISSIVE" };
        Some(vec![
            ("oid", i64::from(policy.id).into()),
            ("polname", name.into()),
            ("polrelid", oid(relation).into()),
            ("polcmd", "r".into()),
            ("polpermissive", (!policy.restrictive).into()),
            ("polroles", Cell::Numbers(policy.to.iter().map(|to| number(access, to)).collect())),
            ("polqual", policy.using.clone().into()),
            ("schemaname", "public".into()),
            ("tablename", relation.name.clone().into()),
            ("policyname", name.into()),
            ("permissive", kind.into()),
            ("roles", Cell::Texts(names.collect())),
            ("cmd", "SELECT".into()),
            ("qual", policy.using.clone().into()),
        ])
    });
    rows.collect()
}

fn number(access: &Access, to: &Grantee) -> i64 {
    to.as_ref().and_then(|name| access.role(name)).map_or(EVERYBODY, |role| i64::from(role.id))
}
