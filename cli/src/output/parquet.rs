//! Tables as Parquet files, <https://parquet.apache.org/docs/file-format/>: typed columns, null where there is nothing, so
//! that pandas, Polars, DuckDB and R read them as they are. Columns are encoded by dictionaries and not compressed.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::Result as ParquetResult;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::exit::Failure;

/// What the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole numbers of 64 bits.
    Integer,
    /// Numbers of 64 bits.
    Number,
    /// Yes or no.
    Boolean,
    /// Text.
    Text,
}

/// Cells of a column, `None` where there is nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cells {
    /// Of [`Kind::Integer`].
    Integers(Vec<Option<i64>>),
    /// Of [`Kind::Number`].
    Numbers(Vec<Option<f64>>),
    /// Of [`Kind::Boolean`].
    Booleans(Vec<Option<bool>>),
    /// Of [`Kind::Text`].
    Texts(Vec<Option<String>>),
}

impl Cells {
    fn is_empty(&self) -> bool {
        match self {
            Cells::Integers(cells) => cells.is_empty(),
            Cells::Numbers(cells) => cells.is_empty(),
            Cells::Booleans(cells) => cells.is_empty(),
            Cells::Texts(cells) => cells.is_empty(),
        }
    }

    /// What they are.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Cells::Integers(_) => Kind::Integer,
            Cells::Numbers(_) => Kind::Number,
            Cells::Booleans(_) => Kind::Boolean,
            Cells::Texts(_) => Kind::Text,
        }
    }
}

/// A file in the making.
pub(crate) struct Writer<W: Write + Send> {
    inner: SerializedFileWriter<W>,
}

impl<W: Write + Send> Writer<W> {
    /// A file with these columns. No name may stand twice.
    pub(crate) fn new(to: W, columns: &[(&str, Kind)]) -> Result<Self, Failure> {
        let properties = WriterProperties::builder().set_created_by(CREATED_BY.to_owned()).build();
        let inner =
            schema(columns).and_then(|schema| SerializedFileWriter::new(to, Arc::new(schema), properties.into()));
        Ok(Self { inner: inner.context(CANNOT)? })
    }

    /// Adds rows: cells of every column, in the order of the columns and equally many of each. They are written at once,
    /// as a row group.
    pub(crate) fn write(&mut self, columns: &[Cells]) -> Result<(), Failure> {
        if columns.iter().all(Cells::is_empty) {
            return Ok(());
        }
        Ok(self.write_group(columns).context(CANNOT)?)
    }

    fn write_group(&mut self, columns: &[Cells]) -> ParquetResult<()> {
        let mut group = self.inner.next_row_group()?;
        for cells in columns {
            let mut column = group.next_column()?.expect("there are as many cells as columns");
            match (column.untyped(), cells) {
                (ColumnWriter::Int64ColumnWriter(to), Cells::Integers(cells)) => {
                    to.write_batch(&present(cells), Some(&levels(cells)), None)?
                }
                (ColumnWriter::DoubleColumnWriter(to), Cells::Numbers(cells)) => {
                    to.write_batch(&present(cells), Some(&levels(cells)), None)?
                }
                (ColumnWriter::BoolColumnWriter(to), Cells::Booleans(cells)) => {
                    to.write_batch(&present(cells), Some(&levels(cells)), None)?
                }
                (ColumnWriter::ByteArrayColumnWriter(to), Cells::Texts(cells)) => {
                    let texts: Vec<ByteArray> = cells.iter().flatten().map(|text| text.as_str().into()).collect();
                    to.write_batch(&texts, Some(&levels(cells)), None)?
                }
                (_, cells) => unreachable!("the column does not hold cells of {:?}", cells.kind()),
            };
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Writes what says where everything is; before, nobody can read the file.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.inner.close().context(CANNOT)?;
        Ok(())
    }
}

const CREATED_BY: &str = concat!("phalanx version ", env!("CARGO_PKG_VERSION"));

const CANNOT: &str = "cannot write the Parquet file";

fn schema(columns: &[(&str, Kind)]) -> ParquetResult<Type> {
    let fields = columns.iter().map(|(name, kind)| {
        let (physical, logical) = match kind {
            Kind::Integer => (Physical::INT64, None),
            Kind::Number => (Physical::DOUBLE, None),
            Kind::Boolean => (Physical::BOOLEAN, None),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        field.with_logical_type(logical).build().map(Arc::new)
    });
    Type::group_type_builder("phalanx").with_fields(fields.collect::<ParquetResult<_>>()?).build()
}

fn present<T: Copy>(cells: &[Option<T>]) -> Vec<T> {
    cells.iter().flatten().copied().collect()
}

/// 1 where there is something, 0 where there is nothing: the definition levels of an optional column.
fn levels<T>(cells: &[Option<T>]) -> Vec<i16> {
    cells.iter().map(|cell| i16::from(cell.is_some())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    #[test]
    fn what_is_written_is_read_back_with_its_types() {
        let file = tempfile::tempfile().unwrap();
        let columns =
            [("n", Kind::Integer), ("schedule.lr", Kind::Number), ("ok", Kind::Boolean), ("name", Kind::Text)];
        let mut writer = Writer::new(&file, &columns).unwrap();
        writer
            .write(&[
                Cells::Integers(vec![Some(i64::MIN), None]),
                Cells::Numbers(vec![None, Some(f64::NEG_INFINITY)]),
                Cells::Booleans(vec![Some(true), None]),
                Cells::Texts(vec![Some("a\u{1b}\n\"ε".to_owned()), None]),
            ])
            .unwrap();
        writer
            .write(&[
                Cells::Integers(vec![Some(2)]),
                Cells::Numbers(vec![Some(0.1)]),
                Cells::Booleans(vec![Some(false)]),
                Cells::Texts(vec![Some(String::new())]),
            ])
            .unwrap();
        writer.close().unwrap();

        let reader = SerializedFileReader::new(file).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let rows: Vec<Vec<(String, Field)>> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().into_columns()).collect();
        let named = |fields: [Field; 4]| columns.iter().map(|(n, _)| (*n).to_owned()).zip(fields).collect::<Vec<_>>();
        let text = |text: &str| Field::Str(text.to_owned());
        assert_eq!(
            rows,
            [
                named([Field::Long(i64::MIN), Field::Null, Field::Bool(true), text("a\u{1b}\n\"ε")]),
                named([Field::Null, Field::Double(f64::NEG_INFINITY), Field::Null, Field::Null]),
                named([Field::Long(2), Field::Double(0.1), Field::Bool(false), text("")]),
            ]
        );
    }
}
