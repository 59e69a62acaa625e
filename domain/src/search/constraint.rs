//! What a configuration must fulfil, as an expression over its values: `model.dim % model.heads == 0`.
//!
//! Numbers, `"text"`, `true`, `false` and the paths of keys; parentheses; `min max abs log exp`; and these operators, from
//! loosest to tightest: `or`, `and`, `not`, the comparisons `== != < <= > >=`, `+ -`, `* / %`, a sign, `**` (to the right).
//! `%` has the sign of the divisor. Numbers are 64-bit floats, which hold every whole number up to 2^53. A parser by binding
//! powers (Pratt 1973).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::space::Value;

/// The longest expression in bytes. It bounds the work, and with it the depth of what is not nested.
pub const CONSTRAINT_BYTES_MAX: usize = 1000;

/// The deepest nesting of parentheses, signs and powers; reading and evaluating recurse.
const DEPTH_MAX: usize = 64;

/// An expression that must be true of a configuration. Travels as its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    text: String,
    root: Expression,
}

/// Why a text is no constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {at}")]
pub struct ConstraintError {
    /// Where, counted in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

/// Why an expression has no value for a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Undefined {
    /// A key that it names has no value.
    Absent,
    /// An operation cannot work on what it was given.
    Mistyped(String),
}

impl Constraint {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.len() > CONSTRAINT_BYTES_MAX {
            let message = format!("longer than {CONSTRAINT_BYTES_MAX} bytes");
            return Err(ConstraintError { at: CONSTRAINT_BYTES_MAX, message });
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
        let root = parser.expression(0)?;
        if let (token @ (Token::Comparison(_) | Token::Word(_) | Token::Symbol(_)), at) = parser.peek() {
            return Err(ConstraintError { at, message: format!("unexpected {token}") });
        }
        if let (Token::Number(_) | Token::Text(_), at) = parser.peek() {
            return Err(ConstraintError { at, message: "an operator is missing".to_owned() });
        }
        if !root.may_be_truth() {
            return Err(ConstraintError {
                at: 1,
                message: "neither true nor false: a comparison is missing".to_owned(),
            });
        }
        Ok(Self { text: text.to_owned(), root })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The paths it names.
    pub fn paths(&self) -> BTreeSet<&str> {
        let mut paths = BTreeSet::new();
        self.root.collect_paths(&mut paths);
        paths
    }

    /// Whether it is true of the values that `value_of` gives for paths. One that must look at a key without a value does
    /// not bind.
    ///
    /// # Errors
    /// What cannot be computed, such as a sum with a text.
    pub fn holds<'v>(&self, value_of: &impl Fn(&str) -> Option<&'v Value>) -> Result<bool, String> {
        match self.root.evaluate(value_of) {
            Ok(Operand::Truth(truth)) => Ok(truth),
            Ok(other) => Err(format!("{other} is neither true nor false")),
            Err(Undefined::Absent) => Ok(true),
            Err(Undefined::Mistyped(why)) => Err(why),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Constraint {
    type Error = ConstraintError;
    fn try_from(text: String) -> Result<Self, ConstraintError> {
        Self::parse(&text)
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> String {
        constraint.text
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Number(f64),
    Text(String),
    Truth(bool),
    Path(String),
    Negated(Box<Expression>),
    Not(Box<Expression>),
    Binary(Operator, Box<(Expression, Expression)>),
    Call(Function, Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Compare(Comparison),
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Abs,
    Log,
    Exp,
}

const FUNCTIONS: [(&str, Function); 5] = [
    ("min", Function::Min),
    ("max", Function::Max),
    ("abs", Function::Abs),
    ("log", Function::Log),
    ("exp", Function::Exp),
];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    /// A path, a function, or one of `and or not true false`.
    Word(String),
    Comparison(Comparison),
    /// One of `+ - * / % ** ( ) ,`.
    Symbol(&'static str),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Number(x) => write!(f, "{x:?}"),
            Token::Text(text) => write!(f, "{text:?}"),
            Token::Word(word) => write!(f, "`{word}`"),
            Token::Comparison(comparison) => {
                let symbol = COMPARISONS.iter().find(|(_, c)| c == comparison).map(|(symbol, _)| symbol);
                write!(f, "`{}`", symbol.expect("every comparison has a symbol"))
            }
            Token::Symbol(symbol) => write!(f, "`{symbol}`"),
            Token::End => f.write_str("end"),
        }
    }
}

/// Longer ones before their beginnings.
const SYMBOLS: [&str; 9] = ["**", "*", "+", "-", "/", "%", "(", ")", ","];

/// The tokens with where each begins, counted in characters from 1; the last one is the end.
fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ConstraintError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text[..text.len() - rest.len()].chars().count() + 1;
        let fails = |message: &str| ConstraintError { at, message: message.to_owned() };
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, at));
            return Ok(tokens);
        };
        let comparison = COMPARISONS.iter().find(|(symbol, _)| rest.starts_with(symbol));
        let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
        let (token, length) = if let Some((symbol, comparison)) = comparison {
            (Token::Comparison(*comparison), symbol.len())
        } else if let Some(symbol) = symbol {
            (Token::Symbol(symbol), symbol.len())
        } else if first.is_ascii_digit() || first == '.' {
            let length = number_length(rest);
            let number = rest[..length].parse().map_err(|_| fails("not a number"))?;
            (Token::Number(number), length)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            (Token::Word(rest[..length].to_owned()), length)
        } else if first == '"' || first == '\'' {
            let inside = &rest[1..];
            let length = inside.find(first).ok_or_else(|| fails("the quote is not closed"))?;
            (Token::Text(inside[..length].to_owned()), length + 2)
        } else if first == '=' {
            return Err(fails("a single `=`: equality is `==`"));
        } else {
            return Err(fails(&format!("unexpected {first:?}")));
        };
        tokens.push((token, at));
        rest = &rest[length..];
    }
}

/// How much of `text` belongs to the number that it begins with: digits, a point, an exponent with its sign.
fn number_length(text: &str) -> usize {
    let mut before = ' ';
    let is_part = |c: char, before: char| {
        c.is_ascii_alphanumeric() || c == '.' || c == '_' || (matches!(c, '+' | '-') && matches!(before, 'e' | 'E'))
    };
    for (index, c) in text.char_indices() {
        if !is_part(c, before) {
            return index;
        }
        before = c;
    }
    text.len()
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
}

/// How tightly operators hold what is left and right of them.
mod binding {
    pub(super) const OR: u8 = 1;
    pub(super) const AND: u8 = 3;
    pub(super) const NOT: u8 = 5;
    pub(super) const COMPARISON: u8 = 7;
    pub(super) const SUM: u8 = 9;
    pub(super) const PRODUCT: u8 = 11;
    pub(super) const SIGN: u8 = 13;
    pub(super) const POWER: u8 = 15;
}

impl Parser {
    fn peek(&self) -> (Token, usize) {
        self.tokens[self.next].clone()
    }

    fn take(&mut self) -> (Token, usize) {
        let token = self.peek();
        // The end is never passed.
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), ConstraintError> {
        match self.take() {
            (Token::Symbol(found), _) if found == symbol => Ok(()),
            (token, at) => Err(ConstraintError { at, message: format!("expected `{symbol}`, found {token}") }),
        }
    }

    /// An expression of operators that bind at least this tightly.
    fn expression(&mut self, binding: u8) -> Result<Expression, ConstraintError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let (_, at) = self.peek();
            return Err(ConstraintError { at, message: format!("more than {DEPTH_MAX} levels deep") });
        }
        let mut left = self.operand()?;
        let mut is_comparison = false;
        loop {
            let (token, at) = self.peek();
            let Some((operator, left_binding, right_binding)) = infix(&token) else { break };
            if left_binding < binding {
                break;
            }
            if is_comparison && matches!(operator, Operator::Compare(_)) {
                let message = "comparisons in a row: join two with `and`".to_owned();
                return Err(ConstraintError { at, message });
            }
            self.take();
            let right = self.expression(right_binding)?;
            is_comparison = matches!(operator, Operator::Compare(_));
            left = Expression::Binary(operator, Box::new((left, right)));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expression, ConstraintError> {
        let (token, at) = self.take();
        match token {
            Token::Number(x) => Ok(Expression::Number(x)),
            Token::Text(text) => Ok(Expression::Text(text)),
            Token::Word(word) => self.word(word, at),
            Token::Symbol("(") => {
                let inside = self.expression(0)?;
                self.expect(")")?;
                Ok(inside)
            }
            Token::Symbol("-") => Ok(Expression::Negated(Box::new(self.expression(binding::SIGN)?))),
            Token::Symbol("+") => self.expression(binding::SIGN),
            Token::Symbol(_) | Token::Comparison(_) | Token::End => {
                Err(ConstraintError { at, message: format!("expected a value, found {token}") })
            }
        }
    }

    fn word(&mut self, word: String, at: usize) -> Result<Expression, ConstraintError> {
        match word.as_str() {
            "true" => return Ok(Expression::Truth(true)),
            "false" => return Ok(Expression::Truth(false)),
            "not" => return Ok(Expression::Not(Box::new(self.expression(binding::NOT)?))),
            "and" | "or" => return Err(ConstraintError { at, message: format!("expected a value, found `{word}`") }),
            _ => {}
        }
        if !matches!(self.peek(), (Token::Symbol("("), _)) {
            let is_path = word.split('.').all(|key| key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
            let message = || format!("{word:?} is not the path of a key");
            return if is_path { Ok(Expression::Path(word)) } else { Err(ConstraintError { at, message: message() }) };
        }
        let Some((_, function)) = FUNCTIONS.iter().find(|(name, _)| *name == word) else {
            let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
            let message = format!("no function `{word}`, there are {}", names.join(", "));
            return Err(ConstraintError { at, message });
        };
        self.expect("(")?;
        let mut arguments = vec![self.expression(0)?];
        while matches!(self.peek(), (Token::Symbol(","), _)) {
            self.take();
            arguments.push(self.expression(0)?);
        }
        self.expect(")")?;
        let takes_one = matches!(function, Function::Abs | Function::Log | Function::Exp);
        if takes_one && arguments.len() != 1 {
            return Err(ConstraintError { at, message: format!("{word} takes 1 argument, found {}", arguments.len()) });
        }
        Ok(Expression::Call(*function, arguments))
    }
}

/// The operator that a token is between two operands, and how tightly it binds left and right.
fn infix(token: &Token) -> Option<(Operator, u8, u8)> {
    let (operator, binding) = match token {
        Token::Word(word) if word == "or" => (Operator::Or, binding::OR),
        Token::Word(word) if word == "and" => (Operator::And, binding::AND),
        Token::Comparison(comparison) => (Operator::Compare(*comparison), binding::COMPARISON),
        Token::Symbol("+") => (Operator::Add, binding::SUM),
        Token::Symbol("-") => (Operator::Subtract, binding::SUM),
        Token::Symbol("*") => (Operator::Multiply, binding::PRODUCT),
        Token::Symbol("/") => (Operator::Divide, binding::PRODUCT),
        Token::Symbol("%") => (Operator::Remainder, binding::PRODUCT),
        // A power holds a sign on its right: 2 ** -1.
        Token::Symbol("**") => return Some((Operator::Power, binding::POWER, binding::SIGN)),
        Token::Symbol(_) | Token::Word(_) | Token::Number(_) | Token::Text(_) | Token::End => return None,
    };
    Some((operator, binding, binding + 1))
}

/// What an expression comes to.
#[derive(Clone, Debug, PartialEq)]
enum Operand<'v> {
    Number(f64),
    Text(&'v str),
    Truth(bool),
}

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Number(x) => write!(f, "{x:?}"),
            Operand::Text(text) => write!(f, "{text:?}"),
            Operand::Truth(truth) => truth.fmt(f),
        }
    }
}

impl<'v> From<&'v Value> for Operand<'v> {
    fn from(value: &'v Value) -> Self {
        match value {
            Value::Boolean(truth) => Operand::Truth(*truth),
            Value::Integer(x) => Operand::Number(*x as f64),
            Value::Number(x) => Operand::Number(*x),
            Value::Text(text) => Operand::Text(text),
        }
    }
}

impl Expression {
    /// Whether its value can be true or false; that of a path is seen only in a configuration.
    fn may_be_truth(&self) -> bool {
        match self {
            Expression::Truth(_) | Expression::Path(_) | Expression::Not(_) => true,
            Expression::Binary(operator, _) => {
                matches!(operator, Operator::Or | Operator::And | Operator::Compare(_))
            }
            Expression::Number(_) | Expression::Text(_) | Expression::Negated(_) | Expression::Call(..) => false,
        }
    }

    fn collect_paths<'e>(&'e self, paths: &mut BTreeSet<&'e str>) {
        match self {
            Expression::Path(path) => {
                paths.insert(path);
            }
            Expression::Negated(inside) | Expression::Not(inside) => inside.collect_paths(paths),
            Expression::Binary(_, sides) => {
                sides.0.collect_paths(paths);
                sides.1.collect_paths(paths);
            }
            Expression::Call(_, arguments) => arguments.iter().for_each(|a| a.collect_paths(paths)),
            Expression::Number(_) | Expression::Text(_) | Expression::Truth(_) => {}
        }
    }

    fn evaluate<'e, 'v: 'e>(&'e self, value_of: &impl Fn(&str) -> Option<&'v Value>) -> Result<Operand<'e>, Undefined> {
        match self {
            Expression::Number(x) => Ok(Operand::Number(*x)),
            Expression::Text(text) => Ok(Operand::Text(text)),
            Expression::Truth(truth) => Ok(Operand::Truth(*truth)),
            Expression::Path(path) => value_of(path).map(Operand::from).ok_or(Undefined::Absent),
            Expression::Negated(inside) => inside.number(value_of).map(|x| Operand::Number(-x)),
            Expression::Not(inside) => inside.truth(value_of).map(|truth| Operand::Truth(!truth)),
            Expression::Binary(Operator::Or, sides) => {
                Ok(Operand::Truth(sides.0.truth(value_of)? || sides.1.truth(value_of)?))
            }
            Expression::Binary(Operator::And, sides) => {
                Ok(Operand::Truth(sides.0.truth(value_of)? && sides.1.truth(value_of)?))
            }
            Expression::Binary(Operator::Compare(comparison), sides) => {
                let (left, right) = (sides.0.evaluate(value_of)?, sides.1.evaluate(value_of)?);
                compare(*comparison, &left, &right).map(Operand::Truth)
            }
            Expression::Binary(operator, sides) => {
                let (x, y) = (sides.0.number(value_of)?, sides.1.number(value_of)?);
                Ok(Operand::Number(operator.compute(x, y)))
            }
            Expression::Call(function, arguments) => {
                let numbers: Result<Vec<f64>, _> = arguments.iter().map(|a| a.number(value_of)).collect();
                Ok(Operand::Number(function.compute(&numbers?)))
            }
        }
    }

    fn number<'e, 'v: 'e>(&'e self, value_of: &impl Fn(&str) -> Option<&'v Value>) -> Result<f64, Undefined> {
        match self.evaluate(value_of)? {
            Operand::Number(x) => Ok(x),
            other => Err(Undefined::Mistyped(format!("{other} is not a number"))),
        }
    }

    fn truth<'e, 'v: 'e>(&'e self, value_of: &impl Fn(&str) -> Option<&'v Value>) -> Result<bool, Undefined> {
        match self.evaluate(value_of)? {
            Operand::Truth(truth) => Ok(truth),
            other => Err(Undefined::Mistyped(format!("{other} is neither true nor false"))),
        }
    }
}

impl Operator {
    fn compute(self, x: f64, y: f64) -> f64 {
        match self {
            Operator::Add => x + y,
            Operator::Subtract => x - y,
            Operator::Multiply => x * y,
            Operator::Divide => x / y,
            Operator::Remainder => {
                let remainder = libm::fmod(x, y);
                let has_other_sign = remainder != 0.0 && (remainder < 0.0) != (y < 0.0);
                if has_other_sign { remainder + y } else { remainder }
            }
            Operator::Power => libm::pow(x, y),
            Operator::Or | Operator::And | Operator::Compare(_) => unreachable!("these are no arithmetic"),
        }
    }
}

impl Function {
    fn compute(self, numbers: &[f64]) -> f64 {
        // A number that is none stays none, so that no comparison with it holds.
        let least = |a: f64, b: f64| if a.is_nan() || a < b { a } else { b };
        let greatest = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
        match self {
            Function::Min => numbers[1..].iter().copied().fold(numbers[0], least),
            Function::Max => numbers[1..].iter().copied().fold(numbers[0], greatest),
            Function::Abs => numbers[0].abs(),
            Function::Log => libm::log(numbers[0]),
            Function::Exp => libm::exp(numbers[0]),
        }
    }
}

fn compare(comparison: Comparison, left: &Operand<'_>, right: &Operand<'_>) -> Result<bool, Undefined> {
    match (comparison, left, right) {
        (_, Operand::Number(x), Operand::Number(y)) => Ok(match comparison {
            Comparison::Equal => x == y,
            // As with every other comparison, nothing holds of what is no number.
            Comparison::Unequal => x != y && !x.is_nan() && !y.is_nan(),
            Comparison::Less => x < y,
            Comparison::AtMost => x <= y,
            Comparison::Greater => x > y,
            Comparison::AtLeast => x >= y,
        }),
        (Comparison::Equal, Operand::Text(a), Operand::Text(b)) => Ok(a == b),
        (Comparison::Unequal, Operand::Text(a), Operand::Text(b)) => Ok(a != b),
        (Comparison::Equal, Operand::Truth(a), Operand::Truth(b)) => Ok(a == b),
        (Comparison::Unequal, Operand::Truth(a), Operand::Truth(b)) => Ok(a != b),
        _ => Err(Undefined::Mistyped(format!("{left} cannot be compared with {right}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Configuration;

    fn values() -> Configuration {
        let text = |w: &str| Value::Text(w.to_owned());
        let pairs = [
            ("model.dim", Value::Integer(64)),
            ("model.heads", Value::Integer(4)),
            ("schedule.lr", Value::Number(1e-3)),
            ("optimizer.type", text("adamw")),
            ("data.augment.flip", Value::Boolean(true)),
        ];
        pairs.map(|(path, value)| (path.to_owned(), value)).into()
    }

    fn holds(text: &str) -> Result<bool, String> {
        let values = values();
        let constraint = Constraint::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        constraint.holds(&|path| values.get(path))
    }

    #[test]
    fn expressions_mean_what_they_say() {
        for truth in [
            "model.dim % model.heads == 0",
            "1 + 2 * 3 == 7",
            "(1 + 2) * 3 == 9",
            "10 - 3 - 2 == 5",
            "2 ** 3 ** 2 == 512",
            "-2 ** 2 == -4",
            "2 ** -1 == 0.5",
            "-7 % 4 == 1 and 7 % -4 == -1 and 7.5 % 2 == 1.5",
            "8 / 4 / 2 == 1",
            "schedule.lr * 1e+3 == 1.0 and 1E-3 == schedule.lr and .5 < 1.",
            "min(3, 1, 2) == 1 and max(model.dim, 100) == 100 and abs(-3) == 3",
            "abs(log(exp(2)) - 2) < 1e-12",
            "not 1 > 2 and true",
            "false or not false and true",
            "not (true and false)",
            "optimizer.type == 'adamw' and optimizer.type != \"sgd\"",
            "data.augment.flip",
            "data.augment.flip == true",
            "(1 < 2) == (3 < 4)",
            "1 < 2 and 2 < 3",
            // What does not exist does not bind, and is not looked at if it does not matter.
            "optimizer.momentum > 0.5",
            "not optimizer.momentum > 0.5",
            "true or optimizer.momentum",
        ] {
            assert_eq!(holds(truth), Ok(true), "{truth}");
        }
        for falsehood in [
            "model.dim % 5 == 0",
            "0 / 0 == 0 / 0",
            "0 / 0 != 1",
            "min(0 / 0, 1) < 2 or max(1, 0 / 0) > 0",
            "log(-1) < 0 or log(-1) >= 0",
            "model.dim % 0 == 0",
            "false and optimizer.momentum > 0.5",
            "not data.augment.flip",
        ] {
            assert_eq!(holds(falsehood), Ok(false), "{falsehood}");
        }
        for (mistyped, why) in [
            ("model.dim + optimizer.type > 0", "\"adamw\" is not a number"),
            ("optimizer.type > 1", "\"adamw\" cannot be compared with 1.0"),
            ("optimizer.type < 'b'", "\"adamw\" cannot be compared with \"b\""),
            ("model.dim", "64.0 is neither true nor false"),
            ("model.dim and true", "64.0 is neither true nor false"),
            ("not 3 * 4", "12.0 is neither true nor false"),
        ] {
            assert_eq!(holds(mistyped), Err(why.to_owned()), "{mistyped}");
        }
    }

    #[test]
    fn what_is_no_expression_is_told_where() {
        let deep = format!("{}1{} < 2", "(".repeat(100), ")".repeat(100));
        let long = format!("1 < {}", "1 + ".repeat(300));
        for (text, expected) in [
            ("", "expected a value, found end at character 1"),
            ("model.dim %", "expected a value, found end at character 12"),
            ("model.dim % % 2", "expected a value, found `%` at character 13"),
            ("model.dim = 2", "a single `=`: equality is `==` at character 11"),
            ("(1 < 2", "expected `)`, found end at character 7"),
            ("1 < 2)", "unexpected `)` at character 6"),
            ("1 < 2 3", "an operator is missing at character 7"),
            ("1 < 2 model.dim", "unexpected `model.dim` at character 7"),
            ("1 < 2 < 3", "comparisons in a row: join two with `and` at character 7"),
            ("model.dim + 1", "neither true nor false: a comparison is missing at character 1"),
            ("'a", "the quote is not closed at character 1"),
            ("größe > 1", "unexpected 'ö' at character 3"),
            ("1 && 2", "unexpected '&' at character 3"),
            ("1.2.3 < 1", "not a number at character 1"),
            ("a..b < 1", "\"a..b\" is not the path of a key at character 1"),
            ("sqrt(2) < 1", "no function `sqrt`, there are min, max, abs, log, exp at character 1"),
            ("abs(1, 2) < 1", "abs takes 1 argument, found 2 at character 1"),
            ("and true", "expected a value, found `and` at character 1"),
            (deep.as_str(), "more than 64 levels deep at character 65"),
            (long.as_str(), "longer than 1000 bytes at character 1000"),
        ] {
            let error = Constraint::parse(text).expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn it_names_its_paths_and_travels_as_text() {
        let text = "max(model.dim, b) > 1 and not a.c == -model.dim";
        let constraint = Constraint::parse(text).unwrap();
        assert_eq!(constraint.paths().into_iter().collect::<Vec<_>>(), ["a.c", "b", "model.dim"]);
        let json = serde_json::to_string(&constraint).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Constraint>(&json).unwrap(), constraint);
        assert!(serde_json::from_str::<Constraint>("\"1 +\"").is_err());
    }
}
