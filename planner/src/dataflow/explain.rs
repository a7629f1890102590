//! A dataflow as text: one line for each operator, inputs indented below it; those of an operator that several
//! read, at its first reader.

use std::collections::HashSet;
use std::fmt::Write;

use super::{Dataflow, NodeId, NodeKind};

/// The tree of operators with what each keeps.
pub fn explain(dataflow: &Dataflow) -> String {
    explain_with(dataflow, &|_| String::new())
}

/// The same with a note behind each operator.
pub fn explain_with(dataflow: &Dataflow, note: &dyn Fn(NodeId) -> String) -> String {
    let mut out = String::new();
    let kind = if dataflow.append_only { "append-only" } else { "changing" };
    let names: Vec<&str> = dataflow.key.iter().map(|k| dataflow.schema().field(*k).name().as_str()).collect();
    let key = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "Result: {kind}, key: {key}");
    for growth in dataflow.growth() {
        let _ = writeln!(out, "Unbounded state: {growth}");
    }
    node(dataflow, dataflow.root, 1, note, &mut HashSet::new(), &mut out);
    out
}

fn node(
    dataflow: &Dataflow,
    id: NodeId,
    depth: usize,
    note: &dyn Fn(NodeId) -> String,
    shown: &mut HashSet<NodeId>,
    out: &mut String,
) {
    let node_at = &dataflow.nodes[id];
    let indent = "  ".repeat(depth);
    let line = match &node_at.kind {
        NodeKind::Source { relation, columns } => {
            let full = relation.full_schema();
            let names: Vec<&str> = columns.iter().map(|c| full.field(*c).name().as_str()).collect();
            format!("Source: {} [{}]", relation.name, names.join(", "))
        }
        NodeKind::Filter(predicate) => format!("Filter: {predicate}"),
        NodeKind::Now => "Now".to_owned(),
        NodeKind::TemporalFilter(predicates) => {
            let predicates = list(predicates).replace("\u{1}now", "now()");
            format!("TemporalFilter: {predicates}; keeps rows that are to come or to leave")
        }
        NodeKind::Project(exprs) => format!("Project: {}", list(exprs)),
        NodeKind::Window { time, spec, merged } => {
            let grace = spec.grace_ms.map_or_else(|| "none".to_owned(), |g| format!("{g} ms"));
            let step = spec.step_ms.map(|step| format!("step {step} ms, ")).unwrap_or_default();
            let (size, advance) = (spec.size_ms, spec.advance_ms);
            let merged = merged.as_ref().map_or("", |_| ", equal rows of an epoch together");
            format!("Window: {time}, size {size} ms, advance {advance} ms, {step}grace {grace}{merged}")
        }
        NodeKind::EmitFinal { end, grace_ms, .. } => {
            format!("EmitFinal: when stream time passes {end} + {grace_ms} ms; keeps open windows")
        }
        NodeKind::Aggregate { group, aggregates } => {
            format!("Aggregate: by [{}], [{}]; keeps every group", list(group), list(aggregates))
        }
        NodeKind::SessionAggregate { spec, aggregates, emit_final, .. } => {
            let grace = spec.grace_ms.map_or_else(|| "none".to_owned(), |g| format!("{g} ms"));
            let (gap, keys, calls) = (spec.gap_ms, list(&spec.keys), list(aggregates));
            let kept = if spec.grace_ms.is_some() { "open sessions" } else { "every session" };
            let last = if *emit_final { "final, " } else { "" };
            format!(
                "SessionAggregate: {}, gap {gap} ms, grace {grace}, {last}by [{keys}], [{calls}]; keeps {kept}",
                spec.time
            )
        }
        NodeKind::TopN { partition, order, skip, fetch, .. } => {
            let order: Vec<String> = order.iter().map(ToString::to_string).collect();
            let range = match (*skip, *fetch) {
                (0, fetch) => format!("first {fetch}"),
                (skip, usize::MAX) => format!("all after {skip}"),
                (skip, fetch) => format!("{fetch} after {skip}"),
            };
            format!("TopN: {range} by [{}] of each [{}]", order.join(", "), list(partition))
        }
        NodeKind::Greatest { partition, value, least } => {
            let which = if *least { "least" } else { "greatest" };
            format!("Greatest: {which} {value} of each [{}]; keeps the rows that have it", list(partition))
        }
        NodeKind::Recompute { partition, fragment, .. } => {
            let partition = list(partition);
            format!("Recompute: {} by [{partition}]; keeps rows and results", fragment.display())
        }
        NodeKind::Unnest { fragment } => format!("{}", fragment.display()),
        NodeKind::Values(plan) => format!("Values: {}", plan.display()),
        NodeKind::Join { on, filter, within, .. } => {
            let kept = match (within, dataflow.shared_side(node_at)) {
                (Some(w), _) => {
                    format!("left rows for {} ms, right rows for {} ms", w.wait_ms[0], w.wait_ms[1])
                }
                (None, None) => "both sides".to_owned(),
                (None, Some(shared)) => {
                    let kept = if shared.side == 1 { "left" } else { "right" };
                    format!("the {kept} side, finds the other in \"{}\"", shared.relation.name)
                }
            };
            format!("Join: {}{}; keeps {kept}", pairs(on), condition(filter))
        }
        NodeKind::Unmatched { wait_ms, eager, left, .. } => {
            let (side, when) = (if *left { "left" } else { "right" }, if *eager { 0 } else { *wait_ms });
            format!("Unmatched: {side} rows that met nothing, after {when} ms; keeps those that wait")
        }
        NodeKind::Lookup { on, filter, outer } => {
            let kind = if *outer { "left " } else { "" };
            let kept = match dataflow.shared_side(node_at) {
                Some(shared) => format!("finds rows in \"{}\"", shared.relation.name),
                None => "keeps the right side".to_owned(),
            };
            format!("Lookup: {kind}{}{}; {kept}", pairs(on), condition(filter))
        }
        NodeKind::Union => "Union".to_owned(),
        NodeKind::Negate => "Negate".to_owned(),
    };
    if !shown.insert(id) && !node_at.inputs.is_empty() {
        let _ = writeln!(out, "{indent}{line}; the one above");
        return;
    }
    let _ = writeln!(out, "{indent}{line}{}", note(id));
    for input in &node_at.inputs {
        node(dataflow, *input, depth + 1, note, shown, out);
    }
}

fn list(exprs: &[datafusion::logical_expr::Expr]) -> String {
    exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn pairs(on: &[(datafusion::logical_expr::Expr, datafusion::logical_expr::Expr)]) -> String {
    on.iter().map(|(l, r)| format!("{l} = {r}")).collect::<Vec<_>>().join(" AND ")
}

fn condition(filter: &Option<datafusion::logical_expr::Expr>) -> String {
    filter.as_ref().map(|f| format!(" AND {f}")).unwrap_or_default()
}
