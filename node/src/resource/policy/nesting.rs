//! How deeply the expressions of a policy lie in each other, from its text alone. Cedar's parser, and whatever walks what it has read, goes
//! down one call a level, and what goes down too far ends the process: so this is looked at before anything is parsed.
//!
//! The depth is counted from above: in each bracket every operator that can take another as its operand is a level, whether it does or not,
//! and commas separate. In a text that is no policy it may be anything; the parser refuses that.

/// The deepest that is read. What people write has less than ten, but for long chains of `||`.
pub(super) const LEVELS_MAX: usize = 64;

/// A bracket that is open, or the statement itself.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// Operators since the last comma.
    operators: usize,
    /// How deep the operand is that is being read: what lies in its brackets, and its accesses (`a.b.c`) on top of that.
    operand: usize,
    /// The deepest operand since the last comma.
    within: usize,
    /// The deepest of what is before the last comma.
    before: usize,
}

impl Frame {
    const fn levels(self) -> usize {
        self.operators.saturating_add(self.within)
    }

    fn access(&mut self) {
        self.operand_is(self.operand.saturating_add(1));
    }

    /// The operand is at least so deep.
    fn operand_is(&mut self, levels: usize) {
        self.operand = self.operand.max(levels);
        self.within = self.within.max(self.operand);
    }
}

/// Where the text gets deeper than [`LEVELS_MAX`], in bytes from its beginning.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let mut outer: Vec<Frame> = Vec::new();
    // Of the frames in `outer`.
    let mut around = 0_usize;
    let mut frame = Frame::default();
    let mut rest = text;
    while let Some((token, behind)) = next(rest) {
        let place = text.len() - rest.len();
        rest = behind;
        match token {
            Token::Open => {
                // Of an index or of arguments, perhaps: `a[b][c]`.
                frame.access();
                around = around.saturating_add(frame.operators).saturating_add(1);
                outer.push(std::mem::take(&mut frame));
            }
            Token::Close => {
                let levels = frame.levels().max(frame.before).saturating_add(1);
                // One too many is the parser's matter.
                frame = outer.pop().unwrap_or_default();
                around = around.saturating_sub(frame.operators.saturating_add(1));
                frame.operand_is(levels);
            }
            Token::Operator => (frame.operators, frame.operand) = (frame.operators.saturating_add(1), 0),
            Token::Access => frame.access(),
            Token::Comparison => frame.operand = 0,
            Token::Comma => frame = Frame { before: frame.levels().max(frame.before), ..Frame::default() },
            Token::End => (outer, around, frame) = (Vec::new(), 0, Frame::default()),
            Token::Other => {}
        }
        if around.saturating_add(frame.levels()) > LEVELS_MAX {
            return Some(place);
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    /// One whose operand can be of its own kind, or another such.
    Operator,
    /// `.`
    Access,
    /// What ends an operand, and is no level.
    Comparison,
    Comma,
    /// `;`
    End,
    /// Names, literals, comments, space.
    Other,
}

/// The first token of a text that is not empty, and what is behind it.
fn next(text: &str) -> Option<(Token, &str)> {
    let first = text.chars().next()?;
    let after = |bytes: usize| text.get(bytes..).unwrap_or_default();
    let single = |token| Some((token, after(first.len_utf8())));
    match first {
        '"' => Some((Token::Other, after(string_bytes(text)))),
        '/' if text.starts_with("//") => Some((Token::Other, after(text.find(['\n', '\r']).unwrap_or(text.len())))),
        '(' | '[' | '{' => single(Token::Open),
        ')' | ']' | '}' => single(Token::Close),
        ',' => single(Token::Comma),
        ';' => single(Token::End),
        '.' => single(Token::Access),
        '&' if text.starts_with("&&") => Some((Token::Operator, after(2))),
        '|' if text.starts_with("||") => Some((Token::Operator, after(2))),
        '!' if !text.starts_with("!=") => single(Token::Operator),
        '+' | '-' | '*' | '/' | '%' => single(Token::Operator),
        '=' | '<' | '>' | '!' => single(Token::Comparison),
        _ if is_of_a_word(first) => {
            let bytes = text.find(|other| !is_of_a_word(other)).unwrap_or(text.len());
            let token = match text.get(..bytes) {
                // Each clause of a statement is one more conjunct.
                Some("if" | "when" | "unless") => Token::Operator,
                Some("then" | "else" | "in" | "has" | "like" | "is") => Token::Comparison,
                _ => Token::Other,
            };
            Some((token, after(bytes)))
        }
        _ => single(Token::Other),
    }
}

fn is_of_a_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

/// The length of the string literal that a text begins with; all of it if the literal has no end.
fn string_bytes(text: &str) -> usize {
    let mut is_escaped = false;
    for (place, letter) in text.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(condition: &str) -> bool {
        too_deep(&format!("permit(principal, action, resource) when {{ {condition} }};")).is_none()
    }

    #[test]
    fn what_people_write_is_not_deep() {
        let names: Vec<String> = (0..5_000).map(|n| format!("Consumer::\"c{n}\"")).collect();
        assert!(of(&format!("[{}].contains(principal)", names.join(", "))));
        assert!(of(&vec!["principal.a.b == \"x\" && resource.c.d.e != \"y\""; 30].join(" || ")));
        assert!(of("\"((((((\\\"[[[[\" == context.path // {{{{{{{{\n"));
        let statement = "permit(principal in Role::\"r\", action, resource) unless { !(context.a || context.b) };\n";
        assert_eq!(too_deep(&statement.repeat(1_000)), None);
        assert_eq!(too_deep(""), None);
    }

    #[test]
    fn what_lies_in_each_other_is_counted() {
        let deep = |open: &str, middle: &str, close: &str, times: usize| {
            of(&format!("{}{middle}{}", open.repeat(times), close.repeat(times)))
        };
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("[", "1", "]"),
            ("{a: ", "1", "}"),
            ("f(", "1", ")"),
            ("if true then true else ", "true", ""),
            ("if ", "true", " then true else true"),
            ("!", "true", ""),
            ("-", "1", ""),
            ("true && ", "true", ""),
            ("", "true", " || true"),
            ("", "1", " + 1"),
            ("", "1", " * 1"),
            ("", "context", ".a"),
            ("", "context", "[\"a\"]"),
            ("", "context", ".f(1)"),
            ("", "true } when { true", ""),
        ] {
            assert!(deep(open, middle, close, 30), "{open}{middle}{close}");
        }
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("[", "1", "]"),
            ("{a: ", "1", "}"),
            ("f(1, ", "1", ", 2)"),
            ("(true, [1, ", "true", "])"),
            ("if true then true else ", "true", ""),
            ("if ", "true", " then true else true"),
            ("!", "true", ""),
            ("- ", "1", ""),
            ("true && ", "true", ""),
            ("", "true", " || true"),
            ("", "1", " + 1"),
            ("", "context", ".a"),
            ("", "context", "[\"a\"]"),
            ("", "context", ".f(1)"),
            ("", "true", " } when { true"),
            ("(true && ", "true", ")"),
        ] {
            assert!(!deep(open, middle, close, LEVELS_MAX), "{open}{middle}{close}");
        }
        // What is behind the deepest of several counts on top of it.
        let chain = " && true".repeat(30);
        assert!(of(&format!("[true{chain}, true].contains(true)")));
        assert!(!of(&format!("[[true{chain}, true].contains(true){chain}, true].contains(true){chain}")));
        let accesses = ".a".repeat(30);
        assert!(of(&format!("(context{accesses}){accesses}")));
        assert!(!of(&format!("((context{accesses}){accesses}){accesses}")));
        let text = format!("permit(principal, action, resource) when {{ {}", "(".repeat(5_000));
        assert_eq!(too_deep(&text), Some(text.find("((").unwrap() + LEVELS_MAX - 2));
    }
}
