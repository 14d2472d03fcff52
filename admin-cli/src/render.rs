//! The only printer: what a command has to say, as a table for people, or as JSON or YAML for programs. What there is
//! to say is decided by the verbs.

use crate::exit::Failure;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use proto::admin::Place;
use serde::Serialize;
use std::io::{self, Write};

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// What a command has to say: once as data, once for people.
pub struct Answer {
    data: Box<dyn Data>,
    people: Vec<Block>,
    /// Remarks that do not belong to the result; to standard error.
    notices: Vec<String>,
}

/// A part of an answer for people.
#[derive(Clone, Debug)]
pub enum Block {
    /// Lines as they are.
    Text(String),
    /// A table. Without rows, its last text stands alone.
    Table(Vec<&'static str>, Vec<Vec<String>>, &'static str),
    /// Names and values, one pair a line.
    Pairs(Vec<(&'static str, String)>),
}

/// Data that can be printed for programs.
trait Data {
    fn text(&self, format: Format) -> Result<String, Failure>;
    fn line(&self) -> Result<String, Failure>;
}

impl<T: Serialize> Data for T {
    fn text(&self, format: Format) -> Result<String, Failure> {
        match format {
            Format::Yaml => serde_saphyr::to_string(self).map_err(|error| unprintable(&error)),
            _ => serde_json::to_string_pretty(self).map_err(|error| unprintable(&error)),
        }
    }

    fn line(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| unprintable(&error))
    }
}

impl Answer {
    /// An answer with its data and what people see of it.
    pub fn new(data: impl Serialize + 'static, people: Vec<Block>) -> Self {
        Self { data: Box::new(data), people, notices: Vec::new() }
    }

    /// With remarks.
    pub fn with_notices(mut self, notices: impl IntoIterator<Item = String>) -> Self {
        self.notices.extend(notices);
        self
    }

    /// The text that goes to standard output.
    pub fn text(&self, format: Format) -> Result<String, Failure> {
        let mut text = match format {
            Format::Table => {
                let blocks: Vec<String> = self.people.iter().map(Block::text).collect();
                blocks.join("\n")
            }
            _ => self.data.text(format)?,
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }

    /// One item of a stream: a line, a line of JSON, or a document of YAML.
    fn item(&self, format: Format) -> Result<String, Failure> {
        Ok(match format {
            Format::Table => self.text(format)?,
            Format::Json => format!("{}\n", self.data.line()?),
            Format::Yaml => format!("---\n{}", self.text(format)?),
        })
    }
}

impl Block {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => ended(&harmless(text)),
            Self::Table(_, rows, empty) if rows.is_empty() => ended(empty),
            Self::Table(columns, rows, _) => {
                let mut table = plain();
                table.set_header(columns);
                table.add_rows(rows.iter().map(|row| row.iter().map(|cell| one_line(cell))));
                laid_out(&table)
            }
            Self::Pairs(pairs) => {
                let mut table = plain();
                table.add_rows(pairs.iter().map(|(name, value)| [format!("{name}:"), one_line(value)]));
                laid_out(&table)
            }
        }
    }
}

/// Prints what commands say.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    format: Format,
}

impl Printer {
    /// A printer for one invocation.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// How it prints.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The result of a command.
    pub fn answer(&self, answer: &Answer) -> Result<(), Failure> {
        out(&answer.text(self.format)?)?;
        self.notices(answer);
        Ok(())
    }

    /// One item of a stream.
    pub fn item(&self, answer: &Answer) -> Result<(), Failure> {
        out(&answer.item(self.format)?)
    }

    /// A text that is the same in every format, such as a completion script.
    pub fn raw(&self, text: &str) -> Result<(), Failure> {
        out(text)
    }

    /// A remark for people; programs read standard output.
    pub fn notice(&self, text: &str) {
        err(&ended(&harmless(text)));
    }

    /// A question, on the line on which it is answered.
    pub fn question(&self, text: &str) {
        err(&format!("{} [y/N] ", one_line(text)));
    }

    /// Why the command failed.
    pub fn failure(&self, failure: &Failure) {
        err(&failure_text(failure, self.format));
    }

    fn notices(&self, answer: &Answer) {
        if self.format == Format::Table {
            for notice in &answer.notices {
                self.notice(notice);
            }
        }
    }
}

/// A failure as it goes to standard error.
pub fn failure_text(failure: &Failure, format: Format) -> String {
    #[derive(Serialize)]
    struct Outer<'a> {
        error: Inner<'a>,
    }
    #[derive(Serialize)]
    struct Inner<'a> {
        r#type: &'a str,
        message: &'a str,
        hint: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        places: Vec<PlaceData>,
    }
    let for_people = || {
        let mut text = format!("error: {}\n", failure.message);
        for place in &failure.places {
            text.push_str(&format!("  {}\n", place_text(place)));
        }
        if !failure.hint.is_empty() {
            text.push_str(&format!("hint: {}\n", failure.hint));
        }
        harmless(&text)
    };
    if format == Format::Table {
        return for_people();
    }
    let data = Outer {
        error: Inner {
            r#type: &failure.kind,
            message: &failure.message,
            hint: &failure.hint,
            places: failure.places.iter().map(PlaceData::from).collect(),
        },
    };
    data.text(format).map(|text| ended(&text)).unwrap_or_else(|_| for_people())
}

/// `file:line:column: field: message`, without what is not known.
pub fn place_text(place: &Place) -> String {
    let mut text = place.file.clone();
    for number in [place.line, place.column] {
        if number == 0 {
            break;
        }
        text.push_str(&format!(":{number}"));
    }
    for part in [&place.field, &place.message] {
        if !part.is_empty() {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(part);
        }
    }
    text
}

/// A place as programs read it.
#[derive(Serialize)]
pub struct PlaceData {
    file: String,
    line: u32,
    column: u32,
    field: String,
    message: String,
}

impl From<&Place> for PlaceData {
    fn from(place: &Place) -> Self {
        let Place { file, line, column, field, message } = place.clone();
        Self { file, line, column, field, message }
    }
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Without the column of padding on the left that a table without borders keeps, and without what is blank on the right.
fn laid_out(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line).trim_end())).collect()
}

/// Without what would move a terminal's cursor or change its colours: names and messages come from others.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

fn one_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

fn unprintable(error: &dyn std::error::Error) -> Failure {
    Failure::local(format!("the answer cannot be printed: {error}"))
}

fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // `quoratectl … | head` has read enough: there is nobody left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::local(format!("standard output cannot be written: {error}"))),
    }
}

fn err(text: &str) {
    // Where standard error is closed, there is nowhere to say so.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use std::path::PathBuf;

    /// Compares with `tests/golden/NAME`; `UPDATE_GOLDEN=1` writes it.
    fn golden(name: &str, text: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(wanted, text, "{name} differs; UPDATE_GOLDEN=1 accepts the new text");
    }

    #[test]
    fn an_answer_in_each_format() {
        #[derive(Serialize)]
        struct Thing {
            name: &'static str,
            expires_at: Option<&'static str>,
            scopes: Vec<&'static str>,
        }
        let answer = Answer::new(
            Thing { name: "a: b", expires_at: None, scopes: vec!["x", "yes"] },
            vec![
                Block::Pairs(vec![("name", "a: b".into()), ("expires", "never".into())]),
                Block::Table(vec!["SCOPE", "USED"], vec![vec!["x".into(), "1".into()], vec!["longer".into()]], ""),
                Block::Table(vec!["NONE"], vec![], "no things"),
                Block::Text("done".into()),
            ],
        );
        golden("answer.table.txt", &answer.text(Format::Table).unwrap());
        golden("answer.json.txt", &answer.text(Format::Json).unwrap());
        golden("answer.yaml.txt", &answer.text(Format::Yaml).unwrap());
        golden("item.json.txt", &answer.item(Format::Json).unwrap());
        golden("item.yaml.txt", &answer.item(Format::Yaml).unwrap());
    }

    #[test]
    fn the_terminal_is_not_told_what_to_do() {
        let cell = vec![vec!["a\u{1b}[2Jb\nc".to_owned()]];
        let answer = Answer::new((), vec![Block::Table(vec!["X"], cell, ""), Block::Text("\u{7}ok".into())]);
        assert_eq!(answer.text(Format::Table).unwrap(), "X\na\u{fffd}[2Jb c\n\n\u{fffd}ok\n");
    }

    #[test]
    fn a_failure_in_each_format() {
        let failure = Failure {
            places: vec![
                Place {
                    file: "gateway.yaml".into(),
                    line: 12,
                    column: 5,
                    field: "routes.orders.upstream".into(),
                    message: "no upstream `order`".into(),
                },
                Place { file: "gateway.yaml".into(), message: "is empty".into(), ..Place::default() },
            ],
            ..Failure::new(Exit::Refused, "invalid", "the file has 2 mistakes", "nothing was applied")
        };
        golden("failure.table.txt", &failure_text(&failure, Format::Table));
        golden("failure.json.txt", &failure_text(&failure, Format::Json));
        golden("failure.yaml.txt", &failure_text(&failure, Format::Yaml));
    }
}
