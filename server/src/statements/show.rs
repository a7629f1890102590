//! SHOW and DESCRIBE, over the same facts as the system relations.

use planner::{Relation, RelationKind, explain as dataflow_text};
use sql::ShowObjects;
use sql::sqlparser::ast::ObjectName;

use super::{Outcome, text_rows};
use crate::pg::WireError;
use crate::session::Session;
use crate::settings::display_name;

type Row = Vec<Option<String>>;

pub(super) async fn objects(session: &mut Session, objects: ShowObjects) -> Result<Outcome, WireError> {
    let snapshot = session.snapshot().await?;
    let list = |keep: fn(&Relation) -> bool, row: fn(&Relation) -> Row| -> Vec<Row> {
        snapshot.catalog.visible().filter(|r| keep(r)).map(|r| row(r)).collect()
    };
    let rows = match objects {
        ShowObjects::Streams => text_rows(
            &["name", "topic", "partitions"],
            list(Relation::is_stream, |r| {
                vec![Some(r.name.clone()), Some(r.topic.name.clone()), Some(r.partitions.to_string())]
            }),
        )?,
        ShowObjects::Tables => text_rows(
            &["name", "key"],
            list(
                |r| matches!(r.kind, RelationKind::Table | RelationKind::MaterializedView),
                |r| vec![Some(r.name.clone()), key(r)],
            ),
        )?,
        ShowObjects::Views => text_rows(
            &["name", "kind", "definition"],
            list(
                |r| !r.is_base(),
                |r| vec![Some(r.name.clone()), Some(r.kind.sql().to_lowercase()), Some(r.text.clone())],
            ),
        )?,
        ShowObjects::Topics => text_rows(
            &["name", "relation", "partitions"],
            list(Relation::has_topic, |r| {
                vec![Some(r.topic.name.clone()), Some(r.name.clone()), Some(r.partitions.to_string())]
            }),
        )?,
        ShowObjects::Queries => {
            let rows = snapshot.catalog.iter().filter_map(|r| {
                let status = snapshot.query(r.id)?;
                let cells =
                    [status.state().to_owned(), status.rows_in.to_string(), status.state_bytes.to_string()];
                Some(
                    std::iter::once(Some(r.name.clone()))
                        .chain(cells.map(Some))
                        .chain([status.error.clone()])
                        .collect(),
                )
            });
            text_rows(&["relation", "state", "rows_in", "state_bytes", "error"], rows.collect())?
        }
        ShowObjects::Functions => {
            let state = &session.shared.state;
            let mut rows: Vec<Row> = state
                .scalar_functions()
                .keys()
                .map(|n| (n, "scalar"))
                .chain(state.aggregate_functions().keys().map(|n| (n, "aggregate")))
                .chain(state.window_functions().keys().map(|n| (n, "window")))
                .map(|(name, kind)| vec![Some(name.clone()), Some(kind.to_owned())])
                .collect();
            rows.sort();
            text_rows(&["name", "kind"], rows)?
        }
    };
    Ok(Outcome::Rows(rows))
}

fn key(relation: &Relation) -> Option<String> {
    let names: Vec<&str> = relation.key.iter().map(|k| relation.columns[*k].name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

pub(super) async fn describe(session: &mut Session, name: &ObjectName) -> Result<Outcome, WireError> {
    let snapshot = session.snapshot().await?;
    let relation = snapshot.catalog.resolve(name)?;
    let mut rows: Vec<Row> = relation
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let mut notes = Vec::new();
            if relation.key.contains(&i) {
                notes.push("key".to_owned());
            }
            if column.not_null {
                notes.push("not null".to_owned());
            }
            if let Some(default) = &column.default {
                notes.push(format!("default {default}"));
            }
            let data_type = crate::pg::column_type(&column.field()).name();
            vec![Some(column.name.clone()), Some(data_type), Some(notes.join(", "))]
        })
        .collect();
    if let Some(dataflow) = relation.dataflow() {
        rows.extend(dataflow_text(dataflow).lines().map(|line| vec![None, None, Some(line.to_owned())]));
    }
    Ok(Outcome::Rows(text_rows(&["column", "type", "notes"], rows)?))
}

pub(super) fn setting(session: &Session, name: Option<&str>) -> Result<Outcome, WireError> {
    let rows = match name {
        None => {
            let rows = session.settings.all().map(|(s, value)| {
                let doc = Some(s.doc.to_owned()).filter(|d| !d.is_empty());
                vec![Some(display_name(s.name).to_owned()), Some(value), doc]
            });
            text_rows(&["name", "setting", "description"], rows.collect())?
        }
        Some(name) => text_rows(&[display_name(name)], vec![vec![Some(session.settings.get(name)?)]])?,
    };
    Ok(Outcome::Rows(rows))
}
