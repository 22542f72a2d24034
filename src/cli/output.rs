//! Printing lists: table, wide, json, yaml, name.

use clap::ValueEnum;
use serde::Serialize;

use super::CliError;

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// kind/name, a line each
    Name,
}

/// A column of a table of `T`.
pub struct Column<T> {
    title: &'static str,
    wide: bool,
    cell: Box<dyn Fn(&T) -> String>,
}

impl<T> Column<T> {
    /// A column that is always there.
    pub fn new(title: &'static str, cell: impl Fn(&T) -> String + 'static) -> Self {
        Self { title, wide: false, cell: Box::new(cell) }
    }

    /// A column of the wide table.
    pub fn wide(title: &'static str, cell: impl Fn(&T) -> String + 'static) -> Self {
        Self { wide: true, ..Self::new(title, cell) }
    }
}

/// Prints `items` to standard output.
pub fn print<T: Serialize>(
    items: &[T],
    columns: &[Column<T>],
    format: Format,
    kind: &str,
    name: impl Fn(&T) -> String,
) -> Result<(), CliError> {
    let unprintable = |e: &dyn std::error::Error| CliError::Failed(e.to_string());
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&list).map_err(|e| unprintable(&e))?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(&list).map_err(|e| unprintable(&e))?),
        Format::Name => items.iter().for_each(|item| println!("{kind}/{}", name(item))),
        Format::Table | Format::Wide => {
            let shown: Vec<&Column<T>> =
                columns.iter().filter(|c| format == Format::Wide || !c.wide).collect();
            let rows = items.iter().map(|item| shown.iter().map(|c| (c.cell)(item)).collect());
            let titles = shown.iter().map(|c| c.title.to_owned()).collect();
            print!("{}", table(std::iter::once(titles).chain(rows).collect()));
        }
    }
    Ok(())
}

/// Rows with their columns aligned.
fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.first().map(Vec::len).unwrap_or_default();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter().fold(String::new(), |text, row| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text + cells.join("   ").trim_end() + "\n"
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_and_lines_are_not_padded() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(super::table(vec![row(["NAME", "AGE"]), row(["a", "1"])]), "NAME   AGE\na      1\n");
    }
}
