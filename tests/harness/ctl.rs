//! `quoratectl` as a user runs it.

use crate::{json::Value, programs, wait::eventually};
use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A way to run the admin command line with one context.
#[derive(Clone, Debug)]
pub struct Ctl {
    context: PathBuf,
    endpoints: Vec<String>,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The arguments, for messages.
    pub arguments: String,
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ctl {
    /// With a context file.
    pub fn new(context: impl Into<PathBuf>) -> Self {
        Self { context: context.into(), endpoints: Vec::new() }
    }

    /// The context file.
    pub fn context(&self) -> &Path {
        &self.context
    }

    /// The same operator, talking to these nodes only (`host:port` of cluster listeners).
    #[must_use]
    pub fn at(&self, endpoints: &[&str]) -> Self {
        Self {
            context: self.context.clone(),
            endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
        }
    }

    /// Runs with these arguments after `--context FILE`.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        self.run_with_input(arguments, "")
    }

    /// The same with text on standard input.
    pub fn run_with_input<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: &str) -> Ran {
        let mut command = Command::new(programs::quoratectl());
        command.arg("--context").arg(&self.context);
        for endpoint in &self.endpoints {
            command.arg("--endpoint").arg(endpoint);
        }
        command.args(arguments);
        // What the developer has set must not reach the tests.
        for variable in ["QUORATE_CONTEXT", "QUORATE_HOME"] {
            command.env_remove(variable);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("quoratectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().expect("quoratectl ends");
        let _ = writer.join();
        Ran {
            arguments: std::iter::once(OsStr::new("quoratectl"))
                .chain(command.get_args())
                .map(|argument| argument.to_string_lossy())
                .collect::<Vec<_>>()
                .join(" "),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs with `-o json` and expects success: what it printed.
    pub fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        self.run_json(arguments).done()
    }

    /// Runs with `-o json`.
    pub fn run_json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        self.run(["-o".into(), "json".into()].into_iter().chain(arguments))
    }

    /// Runs with `-o json` until it is done: for the time without a leader. Only for commands that may be repeated.
    pub fn json_soon<S: AsRef<OsStr> + Clone>(&self, arguments: &[S]) -> Value {
        eventually("an admin command", || {
            let ran = self.run_json(arguments.iter().cloned());
            if ran.code == 0 { Ok(ran.done()) } else { Err(format!("{ran}")) }
        })
    }

    /// Applies a resource file given as text.
    pub fn apply(&self, text: &str) -> Value {
        self.run_file("apply", text, &[]).done()
    }

    /// Runs `apply`, `diff` or `validate` with `-o json` on a resource file given as text, named `resources.yaml`.
    pub fn run_file(&self, verb: &str, text: &str, more: &[&str]) -> Ran {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("resources.yaml");
        fs::write(&file, text).expect("a resource file can be written");
        let mut arguments: Vec<&OsStr> = vec![verb.as_ref(), "-f".as_ref(), file.as_ref()];
        arguments.extend(more.iter().map(|argument| OsStr::new(*argument)));
        self.run_json(arguments)
    }
}

impl Ran {
    /// What it printed as JSON; panics unless the exit code is 0.
    pub fn done(&self) -> Value {
        assert_eq!(self.code, 0, "{self}");
        if self.stdout.trim().is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The error object of standard error; panics unless the exit code is this one.
    pub fn refused(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{self}");
        assert!(self.stdout.trim().is_empty(), "a refused command prints nothing to standard output: {self}");
        let value: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("stderr is not JSON ({error}): {self}"));
        let error = value["error"].clone();
        assert!(error["type"].is_string() && error["message"].is_string(), "an error has type and message: {self}");
        error
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit {}\nstdout: {}\nstderr: {}", self.arguments, self.code, self.stdout, self.stderr)
    }
}
