//! Commands of other nodes: a template that says how a node is reached, and words that no shell takes for more.

use std::process::{Command, Stdio};

use serde_json::Value;
use unibus_keyfile::id::NodeName;

use crate::rotate::RotateError;

/// How a command is run on another node: words, of which `{node}` and `{command}` are filled in. No shell reads it here;
/// `{command}` is one word, quoted for the shell at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<String>);

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = split(text)?;
        if words.first().is_none_or(|word| word.contains('{')) {
            return Err("it begins with the program, e.g. `ssh {node} {command}`".to_owned());
        }
        if !words.iter().any(|word| word.contains("{command}")) {
            return Err("there is no {command} in it".to_owned());
        }
        Ok(Self(words))
    }
}

impl Template {
    /// The words for a node and a command.
    #[must_use]
    pub fn fill(&self, node: &NodeName, command: &[String]) -> Vec<String> {
        let quoted: Vec<_> = command.iter().map(|word| quote(word)).collect();
        let command = quoted.join(" ");
        // One after the other, so that what stands in the command is not filled in again.
        let fill = |word: &String| {
            let parts: Vec<_> =
                word.split("{command}").map(|part| part.replace("{node}", node.as_str())).collect();
            parts.join(&command)
        };
        self.0.iter().map(fill).collect()
    }

    /// Runs a command of ours on a node and gives its answer. What it says meanwhile goes to our stderr.
    ///
    /// # Errors
    /// [`RotateError::Elsewhere`] with its exit code and its own words.
    pub fn run(&self, node: &NodeName, command: &[String]) -> Result<Value, RotateError> {
        let words = self.fill(node, command);
        let failed = |code: i32, why: String| RotateError::Elsewhere { node: node.clone(), code, why };
        let Some((program, arguments)) = words.split_first() else {
            return Err(failed(-1, "there is no program".to_owned()));
        };
        let ran = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| failed(-1, format!("`{program}`: {error}")))?;
        let code = ran.status.code().unwrap_or(-1);
        let said: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
        if code == 0 && said.is_object() {
            return Ok(said);
        }
        let why = said.pointer("/error/message").and_then(Value::as_str);
        Err(failed(code, why.unwrap_or("it gave no answer").to_owned()))
    }
}

/// A word for a shell: in quotes, unless it holds nothing that a shell looks at.
fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Splits into words; quotes keep a word together.
fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, command: &[&str]) -> Vec<String> {
        let command: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
        template.parse::<Template>().unwrap().fill(&"host1".parse().unwrap(), &command)
    }

    #[test]
    fn node_and_command_are_filled_in_and_nothing_else() {
        assert_eq!(
            fill("ssh root@{node} {command}", &["a", "--b", "c:d"]),
            ["ssh", "root@host1", "a --b c:d"]
        );
        assert_eq!(
            fill("env 'X=/a b/{node}' sh -c {command}", &["a"]),
            ["env", "X=/a b/host1", "sh", "-c", "a"]
        );
        // Words of the command are no templates.
        assert_eq!(fill("ssh {node} {command}", &["{node}", "{command}"])[2], "'{node}' '{command}'");
    }

    #[test]
    fn no_shell_takes_a_word_for_more_than_a_word() {
        let evil = ["; rm -rf /", "$(id)", "`id`", "a'b", "a\"b", "a\nb", "*", "~", "", "a b", "&", "\\"];
        let filled = fill("sh -c {command}", &[&["printf", "%s|"][..], &evil].concat());
        let ran = Command::new(&filled[0]).args(&filled[1..]).output().unwrap();
        let wanted: String = evil.iter().map(|word| format!("{word}|")).collect();
        assert_eq!(String::from_utf8(ran.stdout).unwrap(), wanted);
    }

    #[test]
    fn a_template_without_program_or_command_or_with_an_open_quote_is_refused() {
        for wrong in ["", "{command}", "ssh {node}", "ssh '{node} {command}", "{node} {command}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }
}
