//! Tables and streams of one epoch as DataFusion reads them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream;

use super::TableVersion;
use crate::engine::StreamReader;
use crate::layout::batch_of;

/// A table at one epoch.
#[derive(Debug)]
pub(crate) struct TableProviderAt {
    pub(crate) version: TableVersion,
    /// What is shown,
    pub(crate) schema: SchemaRef,
    /// and where it is in the rows' layout.
    pub(crate) columns: Vec<usize>,
}

fn external(error: crate::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl TableProviderAt {
    /// The key values that filters ask for, if they name every key column with a literal.
    fn wanted_key(&self, filters: &[Expr]) -> Option<Vec<ScalarValue>> {
        let (key, schema) = (self.version.key(), self.version.schema());
        let value = |column: &usize| {
            filters.iter().find_map(|f| equal_literal(f, schema.field(*column).name())).cloned()
        };
        key.iter().map(value).collect::<Option<Vec<_>>>().filter(|values| !values.is_empty())
    }
}

/// The literal that a filter says a column equals.
fn equal_literal<'a>(filter: &'a Expr, column: &str) -> Option<&'a ScalarValue> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(c), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(c))
            if c.name == column && !value.is_null() =>
        {
            Some(value)
        }
        _ => None,
    }
}

#[async_trait]
impl TableProvider for TableProviderAt {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let found = match self.wanted_key(filters) {
            Some(key) => self.version.lookup(&key).map_err(external)?,
            None => None,
        };
        let batches = match found {
            Some(batches) => batches,
            None => self.version.batches().map_err(external)?,
        };
        let shown = batches
            .into_iter()
            .map(|b| batch_of(&self.schema, chosen(&b, &self.columns), b.num_rows()))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let parts = spread(shown, state.config().target_partitions());
        Ok(MemorySourceConfig::try_new_exec(&parts, Arc::clone(&self.schema), projection.cloned())?)
    }
}

fn chosen(rows: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|column| Arc::clone(rows.column(*column))).collect()
}

/// Batches dealt out to parallel parts when there are enough rows to pay for it.
fn spread(batches: Vec<RecordBatch>, parts: usize) -> Vec<Vec<RecordBatch>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let parts = if rows < 64 * 1024 { 1 } else { parts.max(1) };
    let mut dealt = vec![Vec::new(); parts];
    for (i, batch) in batches.into_iter().enumerate() {
        dealt[i % parts].push(batch);
    }
    dealt
}

/// A stream's records up to one epoch, read from the log as the query asks for them.
#[derive(Debug)]
pub(crate) struct StreamProvider {
    pub(crate) reader: Arc<StreamReader>,
    pub(crate) schema: SchemaRef,
    /// Where what is shown is in the rows' layout.
    pub(crate) columns: Vec<usize>,
}

#[async_trait]
impl TableProvider for StreamProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let parts: Vec<Arc<dyn PartitionStream>> = (0..self.reader.topic.partitions())
            .map(|partition| -> Arc<dyn PartitionStream> {
                Arc::new(StreamPart {
                    reader: Arc::clone(&self.reader),
                    schema: Arc::clone(&self.schema),
                    columns: self.columns.clone(),
                    partition,
                })
            })
            .collect();
        let exec =
            StreamingTableExec::try_new(Arc::clone(&self.schema), parts, projection, None, false, limit)?;
        Ok(Arc::new(exec))
    }
}

/// One partition of a stream.
#[derive(Debug)]
struct StreamPart {
    reader: Arc<StreamReader>,
    schema: SchemaRef,
    columns: Vec<usize>,
    partition: usize,
}

impl PartitionStream for StreamPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, columns) = (Arc::clone(&self.schema), self.columns.clone());
        let cursor = self.reader.topic.cursor(self.partition);
        let start = (Arc::clone(&self.reader), cursor, Vec::<RecordBatch>::new());
        let batches = stream::try_unfold(start, move |(reader, mut cursor, mut ready)| {
            let (schema, columns) = (Arc::clone(&schema), columns.clone());
            async move {
                while ready.is_empty() {
                    let Some(batches) = reader.read(&mut cursor).map_err(external)? else { return Ok(None) };
                    ready = batches;
                    ready.reverse();
                }
                let batch = ready.pop().ok_or_else(|| external(crate::Error::bug("stream", "no batch")))?;
                let batch = batch_of(&schema, chosen(&batch, &columns), batch.num_rows())?;
                Ok(Some((batch, (reader, cursor, ready))))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}
