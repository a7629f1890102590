//! Start: the journal says what there is, the log says what happened; both are taken through the
//! step thread's own code, in the order they first came.
//!
//! Invariant: the state after recovery is the state before the end. Result topics already hold
//! some of the epochs that are stepped again; those are not written twice.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use planner::{Binder, Catalog, Relation, RelationId, Topic, TopicPart};
use sql::Statement;
use storage::checkpoint::CheckpointStore;
use storage::log::{EmbeddedLog, Log, LogConfig, TopicPartition};
use storage::meta::{Entry, Journal, MetaStore, open_projection};
use storage::{Epoch, Kind};

use super::EngineConfig;
use super::checkpoint::Covers;
use super::commit::Committer;
use super::creation::TopicEnd;
use super::history::{EpochMerge, READ_BYTES, TopicReader};
use super::meta::{Halt, MetaRecord};
use super::restore::{known_revision, restore};
use super::step::Stepper;
use super::ticks;
use super::topics::{Arrivals, TopicEnds};
use crate::error::{Error, Result};

/// What the engine starts from.
pub(crate) struct Recovered {
    pub(crate) committer: Committer,
    pub(crate) stepper: Stepper,
    pub(crate) next_id: RelationId,
    pub(crate) checkpoints: CheckpointStore,
    /// The epoch and the journal's entry that the newest checkpoint has.
    pub(crate) covered: (Epoch, u64),
}

/// What the journal says of relations that it has made and not removed, and of topics that are left.
pub(super) enum Event {
    Create(Arc<Relation>),
    Topic(Topic),
    Replace(Arc<Relation>),
    Resume(RelationId),
    Halt(RelationId, Halt),
    Rename(RelationId, String),
}

/// An event of the journal.
pub(super) struct Live {
    pub(super) revision: u64,
    /// The epoch it came after.
    after: Epoch,
    pub(super) event: Event,
}

pub(crate) fn recover(config: &EngineConfig) -> Result<Recovered> {
    let mut checkpoints =
        CheckpointStore::open(Arc::clone(&config.fs), &config.data_dir.join("checkpoints"))?;
    let path = config.data_dir.join("meta").join("journal");
    let (journal, entries) = Journal::open(&config.fs, &path, known_revision(&checkpoints))?;
    let records =
        entries.iter().map(|e| Ok((e, MetaRecord::decode(&e.body)?))).collect::<Result<Vec<_>>>()?;
    let (mut live, catalog) = live_relations(&records);
    let ticks = ticks::relation();
    let parts = catalog.topics().flat_map(|topic| &topic.parts);
    let mut topics: HashSet<String> = parts.map(|part| part.log_name.clone()).collect();
    topics.insert(ticks.log_name());
    // A decision or a checkpoint came after every epoch up to this one.
    let acknowledged = entries.last().map_or(0, |e| e.after_epoch);
    let acknowledged = checkpoints.manifests().first().map_or(0, |m| m.epoch).max(acknowledged);
    let log_config = LogConfig { segment_bytes: config.segment_bytes, ..LogConfig::default() };
    let root = config.data_dir.join("topics");
    let (log, found) =
        EmbeddedLog::open(Arc::clone(&config.fs), &root, log_config, acknowledged, |t| topics.contains(t))?;
    if let Some(epoch) = found.cut_epoch {
        tracing::info!(epoch, "cut an epoch that was never acknowledged");
    }
    let log: Arc<dyn Log> = Arc::new(log);
    log.create_topic(&ticks.log_name(), ticks.partitions)?;
    let mut stepper = from_checkpoint(config, &log, &mut checkpoints, &live)?;
    for (topic, error) in lost_beginnings(&live, &catalog, &log) {
        stepper.damage(&topic, error)?;
    }
    let mut covered = (stepper.epoch(), stepper.revision());
    live.retain(|entry| entry.revision > stepper.revision());
    replay(&live, &catalog, &log, &mut stepper)?;
    if covered.0 == 0 && checkpoints.damaged() > 0 {
        stepper.fail_what_lost_history();
    }
    stepper.fail_what_is_damaged();
    stepper.adopt(&catalog);
    let nothing_came = live.is_empty() && stepper.epoch() == covered.0;
    let epoch = found.last_epoch.max(acknowledged).max(stepper.epoch());
    stepper.begin_at(epoch, config.clock.now_ms());
    stepper.has_taken(entries.last().map_or(0, |entry| entry.revision));
    if nothing_came {
        covered = (stepper.epoch(), stepper.revision());
    }
    let projection = projection(config, &entries, &records);
    let next_id = 1 + records.iter().filter_map(|(_, r)| r.created()).max().unwrap_or(0);
    let catalog = stepper.catalog().as_ref().clone();
    let clock = Arc::clone(&config.clock);
    let committer = Committer {
        directory: (Arc::clone(&config.fs), config.data_dir.clone()),
        log,
        journal,
        projection,
        clock,
        epoch,
        catalog,
        turn: 0,
        retained_at_ms: 0,
        committed_at_ms: i64::MIN,
        revision: stepper.revision(),
        covers: Covers::default(),
    };
    Ok(Recovered { committer, stepper, next_id, checkpoints, covered })
}

/// The engine as the newest checkpoint has it that can be used; without any, as it was in the beginning.
fn from_checkpoint(
    config: &EngineConfig,
    log: &Arc<dyn Log>,
    checkpoints: &mut CheckpointStore,
    live: &[Live],
) -> Result<Stepper> {
    while let Some(manifest) = checkpoints.manifests().first().cloned() {
        let mut stepper = Stepper::new(Arc::clone(log), config);
        let restored =
            catch_unwind(AssertUnwindSafe(|| restore(&mut stepper, checkpoints, &manifest, live, log)));
        match restored.unwrap_or_else(|_| Err(Error::bug("checkpoint", "reading it panicked"))) {
            Ok(()) => return Ok(stepper),
            Err(error) => {
                tracing::error!(epoch = manifest.epoch, %error, "a checkpoint cannot be used");
                checkpoints.discard(manifest.epoch);
            }
        }
    }
    Ok(Stepper::new(Arc::clone(log), config))
}

/// Plans every statement again, in order; one that no longer plans is left out and named. With the
/// catalog that comes out.
fn live_relations(records: &[(&Entry, MetaRecord)]) -> (Vec<Live>, Catalog) {
    let dropped: HashSet<RelationId> = records
        .iter()
        .filter_map(|(_, r)| match r {
            MetaRecord::Drop { ids, .. } => Some(ids.iter().copied()),
            _ => None,
        })
        .flatten()
        .collect();
    let state = planner::session_state(1);
    let at = |entry: &Entry, event| Live { revision: entry.revision, after: entry.after_epoch, event };
    let mut catalog = Catalog::default();
    let mut live = Vec::new();
    for (entry, record) in records {
        let (id, text) = match record {
            MetaRecord::Create { id, text, .. } | MetaRecord::Replace { id, text } => (id, text),
            MetaRecord::Halt { id, halt } if catalog.by_id(*id).is_some() => {
                live.push(at(entry, Event::Halt(*id, *halt)));
                continue;
            }
            MetaRecord::Resume { id } if catalog.by_id(*id).is_some() => {
                live.push(at(entry, Event::Resume(*id)));
                continue;
            }
            MetaRecord::Rename { id, name } if catalog.by_id(*id).is_some() => {
                catalog = catalog.renamed(*id, name);
                live.push(at(entry, Event::Rename(*id, name.clone())));
                continue;
            }
            MetaRecord::Access(change) => {
                catalog = catalog.with_access(Arc::new(catalog.access().with(change)));
                continue;
            }
            MetaRecord::Comment(comment) if catalog.by_id(comment.relation).is_some() => {
                catalog = catalog.with_comment(comment);
                continue;
            }
            MetaRecord::Drop { ids, delete_topics } => {
                catalog = catalog.without(ids, *delete_topics);
                continue;
            }
            _ => continue,
        };
        if dropped.contains(id) {
            if let MetaRecord::Create { topic: Some(topic), .. } = record {
                catalog = catalog.with_topic(topic.topic(*id, true));
                live.push(at(entry, Event::Topic(topic.topic(*id, false))));
            }
            continue;
        }
        let planned = catch_unwind(AssertUnwindSafe(|| plan(&Binder::new(&catalog, &state), *id, text)));
        match planned.unwrap_or_else(|_| Err(Error::bug("recovery", "planning panicked"))) {
            Ok(relation) => {
                let relation = Arc::new(relation);
                catalog = catalog.with(Arc::clone(&relation));
                let event = match record {
                    MetaRecord::Replace { .. } => Event::Replace(relation),
                    _ => Event::Create(relation),
                };
                live.push(at(entry, event));
            }
            Err(error) => {
                tracing::error!(statement = %text, %error, "a relation could not be loaded and is left out")
            }
        }
    }
    live.retain(|entry| match &entry.event {
        Event::Topic(left) => is_left(&catalog, left),
        _ => true,
    });
    (live, catalog)
}

/// Whether what a relation left behind is still there.
fn is_left(catalog: &Catalog, topic: &Topic) -> bool {
    let parts = catalog.topic(&topic.name).map_or(&[][..], |there| &there.parts);
    topic.parts.iter().all(|part| parts.iter().any(|p| p.relation == part.relation))
}

fn plan(binder: &Binder<'_>, id: RelationId, text: &str) -> Result<Relation> {
    let statement = sql::parse(text).map_err(planner::Error::from)?.pop().map(|p| p.statement);
    match statement {
        Some(Statement::CreateRelation(create)) => {
            Ok(planner::plan_create(binder.catalog(), &create, id, text)?)
        }
        Some(Statement::CreateAs(create)) => Ok(planner::plan_create_as(binder, &create, id, text)?),
        Some(Statement::Insert(insert)) => Ok(planner::plan_insert(binder, &insert, id, text)?),
        Some(Statement::AddColumns(add)) => {
            let altered = planner::plan_add_columns(binder.catalog(), &add, text)?;
            altered.ok_or_else(|| Error::bug("recovery", "the columns are there already"))
        }
        _ => Err(Error::bug("recovery", "the journal holds another statement")),
    }
}

/// Epochs and creations in their first order, from where the stepper is.
fn replay(live: &[Live], catalog: &Catalog, log: &Arc<dyn Log>, stepper: &mut Stepper) -> Result<()> {
    let mut names = Vec::new();
    let mut readers = Vec::new();
    for topic in catalog.topics() {
        // What a query wrote, it writes again.
        let again = |part: &TopicPart| catalog.by_id(part.relation).is_some_and(|r| !r.is_base());
        let parts = topic.parts.iter().filter(|part| !again(part)).cloned().collect();
        readers.push(reader(log, &Topic { parts, ..topic.clone() }, stepper)?);
        names.push(topic.name.clone());
    }
    let ticks = Topic::of(&ticks::relation());
    let ticks_reader = reader(log, &ticks, stepper)?;
    stepper.ticks = ticks_reader.start();
    readers.push(ticks_reader);
    names.push(ticks.name);
    let mut history = EpochMerge::isolating(readers.iter(), READ_BYTES);
    let mut events: VecDeque<&Live> = live.iter().collect();
    loop {
        let next = history.peek_epoch()?;
        for (reader, error) in history.take_damaged() {
            stepper.damage(&names[reader], error)?;
        }
        while let Some(entry) = events.pop_front_if(|e| next.is_none_or(|epoch| e.after < epoch)) {
            stepper.begin_at(stepper.epoch().max(entry.after), 0);
            happen(&entry.event, log, stepper)?;
        }
        let Some(epoch) = history.next_epoch()? else { return Ok(()) };
        let mut arrivals = Arrivals::new();
        for (reader, arrival) in epoch.arrivals {
            arrivals.entry(names[reader].clone()).or_default().push(arrival);
        }
        stepper.step(epoch.epoch, epoch.now_ms, arrivals);
    }
}

/// Topics whose first records are gone although nothing has ever let them go, and what is wrong with each.
fn lost_beginnings(live: &[Live], catalog: &Catalog, log: &Arc<dyn Log>) -> Vec<(String, storage::Error)> {
    let retaining = live.iter().filter_map(|entry| match &entry.event {
        Event::Create(r) | Event::Replace(r) => (r.retention != (None, None)).then_some(r.id),
        _ => None,
    });
    let let_go: HashSet<RelationId> = retaining.collect();
    let mut lost = Vec::new();
    for relation in catalog.iter().filter(|r| r.has_topic() && !let_go.contains(&r.id)) {
        for partition in 0..relation.partitions {
            let at = TopicPartition { topic: relation.log_name(), partition };
            // What cannot be told is damaged, and said to be elsewhere.
            let start = log.bounds(&at).map_or(0, |there| there.start);
            if start > 0 {
                let path = Path::new(&at.topic).join(partition.to_string());
                let reason = format!("its first record has offset {start}, and none was let go");
                lost.push((
                    relation.topic.name.clone(),
                    storage::Error::Corrupt { path, position: 0, reason },
                ));
            }
        }
    }
    lost
}

fn happen(event: &Event, log: &Arc<dyn Log>, stepper: &mut Stepper) -> Result<()> {
    let relation = match event {
        Event::Create(relation) => return create(relation, log, stepper),
        Event::Topic(topic) => return stepper.keep_topic(topic.clone()),
        Event::Halt(id, halt) => {
            stepper.halt(*id, *halt);
            return Ok(());
        }
        Event::Rename(id, name) => {
            stepper.rename(*id, name);
            return Ok(());
        }
        Event::Replace(relation) => Some(Arc::clone(relation)),
        Event::Resume(id) => stepper.standing_relation(*id),
    };
    if let Some(relation) = relation
        && let Err(error) = stepper.rejoin(&relation)
    {
        tracing::error!(relation = %relation.name, %error, "a query does not go on");
    }
    Ok(())
}

fn create(relation: &Arc<Relation>, log: &Arc<dyn Log>, stepper: &mut Stepper) -> Result<()> {
    let mut topic = TopicEnd::default();
    if relation.has_topic() && !relation.is_base() {
        topic.epochs = last_epochs(log, relation)?;
    }
    stepper.create_again(relation, topic);
    Ok(())
}

/// The epoch of the last frame of each partition of a result topic.
pub(super) fn last_epochs(log: &Arc<dyn Log>, relation: &Relation) -> Result<Vec<Epoch>> {
    let last = |partition| {
        let at = TopicPartition { topic: relation.log_name(), partition };
        let last = || -> storage::Result<Epoch> {
            let end = log.bounds(&at)?.end;
            let Some(last) = end.checked_sub(1) else { return Ok(0) };
            Ok(log.read(&at, last, end, 1)?.last().map_or(0, |f| f.header.epoch))
        };
        match last() {
            // Nothing is written to it any more.
            Err(error) if error.kind() == Kind::Corrupt => Ok(0),
            last => Ok(last?),
        }
    };
    (0..relation.partitions).map(last).collect()
}

/// A reader of all that is on disk of some parts of a topic and has not been stepped.
fn reader(log: &Arc<dyn Log>, topic: &Topic, stepper: &Stepper) -> Result<TopicReader> {
    let mut ends = TopicEnds::default();
    ends.add_parts(topic, log)?;
    if ends.damage.is_some() || stepper.is_damaged(&topic.name) {
        ends.partitions.iter_mut().for_each(|partition| partition.parts.clear());
    }
    for (partition, ends) in (0u32..).zip(&mut ends.partitions) {
        (ends.start, ends.end) = (0, 0);
        for part in &mut ends.parts {
            let stepped = stepper.stepped(&topic.name, partition, part.relation);
            part.start = part.start.max(stepped);
            part.end = log.bounds(&TopicPartition { topic: part.log_name.to_string(), partition })?.end;
            (ends.start, ends.end) = (ends.start + part.start, ends.end + part.end);
        }
    }
    Ok(TopicReader::new(Arc::clone(log), Arc::new(ends)))
}

/// Opens the projection and brings it up to the journal.
fn projection(
    config: &EngineConfig,
    entries: &[Entry],
    records: &[(&Entry, MetaRecord)],
) -> Arc<dyn MetaStore> {
    let store = open_projection(config.fs.as_ref(), &config.data_dir.join("meta").join("sled"));
    let newest = entries.last().map_or(0, |e| e.revision);
    let applied = match store.revision() {
        Some(revision) if revision <= newest => revision,
        _ => {
            tracing::warn!("the metadata projection does not fit the journal, rebuilding it");
            store.clear();
            0
        }
    };
    for (entry, record) in records.iter().filter(|(e, _)| e.revision > applied) {
        if !store.apply(entry.revision, &record.projection()) {
            break;
        }
    }
    store
}
