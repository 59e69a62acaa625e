use std::fmt;

/// The most problems that are listed; a file with more is not a job file, and a longer list helps no one.
pub const PROBLEMS_MAX: usize = 100;

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named to the reader.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// The path of the key, joined by dots; empty for the file as a whole.
    pub key: String,
    /// What the file says, shortened; `None` where something is missing.
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// A way out.
    pub hint: Option<String>,
    /// The line of the file.
    pub source: String,
}

/// The most characters of a line that are shown.
const SHOWN_MAX: usize = 100;

/// The most characters of a line that are kept.
const SOURCE_MAX: usize = 4096;

impl Problem {
    /// The problem on one line, with a way out but without its place.
    pub(super) fn on_one_line(&self) -> String {
        let hint = self.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{}{hint}", self.brief())
    }

    /// The problem without its place and a way out.
    fn brief(&self) -> String {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let value = self.value.as_ref().map_or(String::new(), |value| format!(" ({value})"));
        format!("{key}{}{value}", self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, hint, source, .. } = self;
        write!(f, "{file}:{line}:{column}: {}", self.brief())?;
        // What is missing in the whole file stands nowhere.
        if !source.trim().is_empty() && (self.value.is_some() || *column > 1 || *line > 1) {
            // A long line is shown from a little before the place on.
            let first = usize::try_from(column.saturating_sub(1)).unwrap_or(0);
            let from = if first < SHOWN_MAX / 2 { 0 } else { first - 20 };
            // One character for one, so that the mark stands where it should.
            let plain = |c: char| if c == '\t' { ' ' } else { c };
            let shown: String = source.chars().skip(from).take(SHOWN_MAX).map(plain).collect();
            let gap = " ".repeat(line.to_string().len());
            write!(f, "\n  {line} | {shown}\n  {gap} | {}^", " ".repeat(first - from))?;
        }
        if let Some(hint) = hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything wrong with a file and those that it names, each in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    listed: Vec<Problem>,
    /// How many there are beyond [`PROBLEMS_MAX`].
    unlisted: usize,
}

impl Problems {
    /// `None` if there are none. `text` is what the file says.
    pub(super) fn new(mut all: Vec<Problem>, text: &str) -> Option<Self> {
        all.sort_by_key(|problem| (problem.line, problem.column));
        let unlisted = all.len().saturating_sub(PROBLEMS_MAX);
        all.truncate(PROBLEMS_MAX);
        for problem in &mut all {
            let line = usize::try_from(problem.line.saturating_sub(1)).ok().and_then(|line| text.lines().nth(line));
            // A line may be as long as the file.
            problem.source = line.map(|line| line.chars().take(SOURCE_MAX).collect()).unwrap_or_default();
        }
        (!all.is_empty()).then_some(Self { listed: all, unlisted })
    }

    /// These problems, and after them those of another file.
    pub(super) fn followed_by(mut self, other: Self) -> Self {
        self.listed.extend(other.listed);
        self.unlisted += other.unlisted + self.listed.len().saturating_sub(PROBLEMS_MAX);
        self.listed.truncate(PROBLEMS_MAX);
        self
    }

    /// The problems, at most [`PROBLEMS_MAX`] of them.
    pub fn list(&self) -> &[Problem] {
        &self.listed
    }

    /// How many problems there are, listed or not.
    pub fn count(&self) -> usize {
        self.listed.len() + self.unlisted
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.listed {
            writeln!(f, "{problem}")?;
        }
        let plural = if self.count() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural}", self.count())?;
        if self.unlisted > 0 {
            write!(f, ", the first {PROBLEMS_MAX} shown")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
