//! The language of the golden scripts: one command a line, `[@actor] noun.verb [word]… [option=value]…`.
//!
//! Actors are `@name` of an operator (`@root` unless said otherwise), `@node2` and `@bootstrap`. Every command may have
//! `request=N` (else each has its own), `issued=-25h` and, where the command knows it, `if=REVISION`. Instants and
//! durations are `90s`, `5m`, `2h`, `7d`; instants are counted from the start of the script. Texts stand for hashes and
//! key ids.
//!
//! `bucket.acquire NODE [PROCESS] [?WANT]… [!REPORT]… request=N` is what a node sends to get allowances, which last 10 s
//! and a second more for the cluster. A want is `LIMIT/SUBJECT[*COST][,…]:WAITING[+AHEAD]`, a report
//! `LIMIT/SUBJECT:ALLOWANCE:SPENT[:close]`. Limits are `+limit/NAME=rate:TOKENS/PERIOD:BURST` and
//! `+limit/NAME=quota:AMOUNT/WINDOW`.

use crate::show;
use machine::{
    Actor, Applied, Command, Effects, Entry, Name, Outcome, Proposal, RequestId, State,
    allowance::{Acquire, BucketId, Part, Want},
    authority::Phase,
    bucket::{Spent, Terms},
    command::{Initialize, Precondition},
    consumer::ConsumerSpec,
    invariant,
    key::{ImportedKey, KeyId, SecretHash},
    limit::{Quota, Rate, Rule, Window},
    member::{MemberSpec, NodeId, Standing},
    operator::Role,
    resource::{Change, Kind},
    settings::Settings,
    time::{At, Tick, Wall},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// The instant at which every script begins.
pub(crate) const START: u64 = 1_700_000_000_000;

/// How long allowances last.
const TERMS: Terms = Terms { ttl_us: 10_000_000, margin_us: 1_000_000 };

type Result<T> = std::result::Result<T, String>;

/// A state, its log index and its time.
#[derive(Default)]
pub(crate) struct World {
    state: State,
    index: u64,
    elapsed_ms: u64,
    requests: u128,
    acquires: u64,
    output: String,
}

/// The words and options of a line.
struct Line<'a> {
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl World {
    pub(crate) fn take_output(&mut self) -> String {
        std::mem::take(&mut self.output)
    }

    /// Runs one line.
    pub(crate) fn run(&mut self, text: &str) -> Result<()> {
        let (actor, text) = match text.strip_prefix('@') {
            Some(rest) => {
                let (actor, text) = rest.split_once(' ').ok_or("an actor alone does nothing")?;
                (Some(actor), text)
            }
            None => (None, text),
        };
        let mut line = Line { words: Vec::new(), options: BTreeMap::new() };
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        for word in rest.split_whitespace() {
            match word.split_once('=') {
                Some((option, value)) if !word.starts_with(['+', '-']) => {
                    line.options.insert(option, value);
                }
                _ => line.words.push(word),
            }
        }
        match verb {
            "advance" => {
                self.elapsed_ms += duration(line.word(0)?)?;
                self.enter(Vec::new(), Vec::new()).map(drop)
            }
            "back" => {
                self.elapsed_ms = self.elapsed_ms.saturating_sub(duration(line.word(0)?)?);
                Ok(())
            }
            "bucket.acquire" => self.acquire(&line),
            "show" => show::show(&self.state, line.word(0)?, &mut self.output),
            _ => self.propose(actor, verb, &line),
        }
    }

    fn propose(&mut self, actor: Option<&str>, verb: &str, line: &Line<'_>) -> Result<()> {
        let command = self.command(verb, line)?;
        let actor = match actor {
            Some(actor) => actor_of(actor)?,
            None if matches!(command, Command::Initialize(_)) => Actor::Bootstrap,
            None => Actor::Operator(name("root")?),
        };
        let request = self.request(line)?;
        let before = self.state.registry.revision;
        for applied in self.enter(vec![Proposal { request, actor, command }], Vec::new())?.applied {
            let Applied { outcome, index } = applied;
            let was_before = if index == self.index { String::new() } else { format!(" (by entry {index})") };
            let text = match outcome {
                Outcome::Done { revision } if index == self.index && revision == before => "unchanged".to_owned(),
                Outcome::Done { revision } => format!("revision {revision}"),
                Outcome::Admitted { revision, id } => format!("revision {revision}: node {id}"),
                Outcome::Refused(refusal) => format!("refused: {refusal}"),
            };
            writeln!(self.output, "{text}{was_before}").unwrap();
        }
        Ok(())
    }

    /// Applies an entry, and checks what must hold after any.
    fn enter(&mut self, proposals: Vec<Proposal>, acquires: Vec<Acquire>) -> Result<Effects> {
        self.index += 1;
        let at = At { tick: Tick(self.elapsed_ms * 1000), wall: Wall(START + self.elapsed_ms) };
        let before = self.state.clone();
        let entry = Entry { at, terms: TERMS, proposals, acquires };
        let effects = self.state.apply_entry(self.index, &entry);
        invariant::check(&self.state)?;
        let read = State::from_records(self.state.records()).map_err(|invalid| invalid.to_string())?;
        if read != self.state {
            return Err("the state is not what its records say".to_owned());
        }
        let mut records: BTreeMap<_, _> = before.records().collect();
        for (key, record) in self.state.changes_since(&before) {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
        }
        if !records.into_iter().eq(self.state.records()) {
            return Err("the differences do not make the state".to_owned());
        }
        Ok(effects)
    }

    /// One entry with one node's request, and what it is answered.
    fn acquire(&mut self, line: &Line<'_>) -> Result<()> {
        self.acquires += 1;
        let node: NodeId = parse(line.word(0)?)?;
        let mut acquire = Acquire {
            node,
            incarnation: node,
            request: line.number("request", self.acquires)?,
            reports: Vec::new(),
            wants: Vec::new(),
        };
        for word in line.words.iter().skip(1) {
            match word.split_at(1) {
                ("?", text) => acquire.wants.push(want(text)?),
                ("!", text) => acquire.reports.push(report(text)?),
                _ => acquire.incarnation = parse(word)?,
            }
        }
        let answers = self.enter(Vec::new(), vec![acquire])?.answers;
        let before = self.output.len();
        for answer in answers {
            for grant in answer.grants {
                let (number, id, amount) = (grant.allowance, show::bucket_id(&grant.bucket), grant.amount);
                writeln!(self.output, "allowance {number}: {amount} of {id} for {} ms", grant.ttl_us / 1_000).unwrap();
            }
            for scarce in answer.scarce {
                let id = show::bucket_id(&scarce.bucket);
                writeln!(self.output, "scarce: {id}, ask again in {} ms", scarce.due_us / 1_000).unwrap();
            }
        }
        if self.output.len() == before {
            writeln!(self.output, "nothing").unwrap();
        }
        Ok(())
    }

    fn request(&mut self, line: &Line<'_>) -> Result<RequestId> {
        self.requests += 1;
        let random = match line.options.get("request") {
            Some(number) => 1_000_000 + parse::<u128>(number)?,
            None => self.requests,
        };
        let now = START + self.elapsed_ms;
        let issued = match line.options.get("issued") {
            Some(issued) => match issued.strip_prefix('-') {
                Some(ago) => now.saturating_sub(duration(ago)?),
                None => now + duration(issued)?,
            },
            // A retry has the id of the first time.
            None if line.options.contains_key("request") => START,
            None => now,
        };
        Ok(RequestId { issued: Wall(issued), random })
    }

    fn instant(&self, line: &Line<'_>, option: &str) -> Result<Option<Wall>> {
        match line.options.get(option) {
            Some(text) => Ok(Some(Wall(START + self.elapsed_ms + duration(text)?))),
            None => Ok(None),
        }
    }

    fn command(&self, verb: &str, line: &Line<'_>) -> Result<Command> {
        let year = Wall(START + self.elapsed_ms + 365 * 24 * 60 * 60 * 1000);
        Ok(match verb {
            "cluster.initialize" => Command::Initialize(Box::new(Initialize {
                cluster: [0xc1; 16],
                feature_level: line.number("level", 1)?,
                settings: settings(line)?,
                authority_sha256: bytes("ca0")?,
                authority_pem: "the certificate of ca0".to_owned(),
                member: spec(line, "n1")?,
                operator: name("root")?,
                operator_certificate_sha256: bytes("root")?,
                operator_not_after: self.instant(line, "expires")?.unwrap_or(year),
                join_token_hash: bytes("t0")?,
                join_token_not_after: Wall(START + 60 * 60 * 1000),
            })),
            "resources.apply" => Command::ApplyResources {
                validated_against: line.number("against", self.state.registry.resources_revision)?,
                changes: line.words.iter().map(|word| change(word)).collect::<Result<_>>()?,
            },
            "consumer.enable" | "consumer.disable" => Command::SetConsumerEnabled {
                name: name(line.word(0)?)?,
                enabled: verb == "consumer.enable",
                precondition: line.precondition()?,
            },
            "key.create" => Command::CreateKey {
                id: key_id(line.word(0)?)?,
                consumer: name(line.option("consumer")?)?,
                label: line.options.get("label").map(|&label| label.to_owned()),
                scopes: names(line.options.get("scopes").unwrap_or(&""))?,
                hash: SecretHash(bytes(line.options.get("secret").unwrap_or(&"first"))?),
                not_after: self.instant(line, "expires")?,
            },
            "key.rotate" => Command::RotateKey {
                id: key_id(line.word(0)?)?,
                hash: SecretHash(bytes(line.option("secret")?)?),
                overlap_ms: duration(line.option("overlap")?)?,
                not_after: self.instant(line, "expires")?,
                precondition: line.precondition()?,
            },
            "key.revoke" => Command::RevokeKey { id: key_id(line.word(0)?)?, precondition: line.precondition()? },
            "key.import" => Command::ImportKeys(line.words.iter().map(|word| imported(word)).collect::<Result<_>>()?),
            "operator.create" => Command::CreateOperator {
                name: name(line.word(0)?)?,
                role: role(line.option("role")?)?,
                certificate_sha256: bytes(line.options.get("certificate").unwrap_or(&line.word(0)?))?,
                not_after: self.instant(line, "expires")?.unwrap_or(year),
            },
            "operator.revoke" => Command::RevokeOperator { name: name(line.word(0)?)? },
            "join_token.create" => Command::CreateJoinToken {
                hash: bytes(line.word(0)?)?,
                not_after: self.instant(line, "expires")?.unwrap_or(year),
            },
            "member.admit" => Command::AdmitMember {
                token_hash: bytes(line.word(0)?)?,
                spec: spec(line, line.word(1)?)?,
                learner: line.words.contains(&"learner"),
            },
            "member.update" => Command::UpdateMember { id: parse(line.word(0)?)?, spec: spec(line, line.word(1)?)? },
            "member.set_standing" => {
                Command::SetStanding { id: parse(line.word(0)?)?, standing: standing(line.word(1)?)? }
            }
            "member.forget" => Command::ForgetMember { id: parse(line.word(0)?)? },
            "settings.put" => Command::PutSettings { settings: settings(line)?, precondition: line.precondition()? },
            "cluster.finalize_upgrade" => Command::RaiseFeatureLevel { level: parse(line.word(0)?)? },
            "authority.add" => Command::AddAuthority {
                sha256: bytes(line.word(0)?)?,
                certificate_pem: "x".repeat(line.number("bytes", 10)?),
            },
            "authority.set_phase" => {
                Command::SetAuthorityPhase { sha256: bytes(line.word(0)?)?, phase: phase(line.word(1)?)? }
            }
            "authority.remove" => Command::RemoveAuthority { sha256: bytes(line.word(0)?)? },
            "nothing" => Command::Nothing,
            _ => return Err("no such command".to_owned()),
        })
    }
}

impl<'a> Line<'a> {
    fn word(&self, place: usize) -> Result<&'a str> {
        self.words.get(place).copied().ok_or_else(|| format!("word {} is missing", place + 1))
    }

    fn option(&self, option: &str) -> Result<&'a str> {
        self.options.get(option).copied().ok_or_else(|| format!("{option}= is missing"))
    }

    fn number<T: std::str::FromStr>(&self, option: &str, otherwise: T) -> Result<T> {
        self.options.get(option).map_or(Ok(otherwise), |number| parse(number))
    }

    fn precondition(&self) -> Result<Precondition> {
        match self.options.get("if") {
            Some(revision) => Ok(Precondition::Revision(parse(revision)?)),
            None => Ok(Precondition::Any),
        }
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn name(text: &str) -> Result<Name> {
    Name::new(text).map_err(|_| format!("{text} is not a name"))
}

fn names(text: &str) -> Result<BTreeSet<Name>> {
    text.split(',').filter(|name| !name.is_empty()).map(name).collect()
}

/// A text in the place of a hash.
fn bytes(text: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    bytes.get_mut(..text.len()).ok_or("too long for a hash")?.copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// A word of a-z and 2-7 in the place of a key id: filled up with `a`.
fn key_id(text: &str) -> Result<KeyId> {
    format!("{text:a<16}").parse().map_err(|_| format!("{text} does not make a key id"))
}

fn duration(text: &str) -> Result<u64> {
    let (number, unit) = text.split_at(text.len() - 1);
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text} is not a duration")),
    };
    Ok(parse::<u64>(number)? * unit_ms)
}

fn actor_of(text: &str) -> Result<Actor> {
    match text.strip_prefix("node") {
        Some(id) => Ok(Actor::Node(parse(id)?)),
        None if text == "bootstrap" => Ok(Actor::Bootstrap),
        None => Ok(Actor::Operator(name(text)?)),
    }
}

fn role(text: &str) -> Result<Role> {
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    roles.into_iter().find(|role| role.as_str() == text).ok_or_else(|| format!("{text} is not a role"))
}

fn standing(text: &str) -> Result<Standing> {
    match text {
        "eligible" => Ok(Standing::Eligible),
        "learner" => Ok(Standing::Learner),
        "leaving" => Ok(Standing::Leaving),
        _ => Err(format!("{text} is not a standing")),
    }
}

fn phase(text: &str) -> Result<Phase> {
    match text {
        "incoming" => Ok(Phase::Incoming),
        "active" => Ok(Phase::Active),
        "retiring" => Ok(Phase::Retiring),
        _ => Err(format!("{text} is not a phase")),
    }
}

fn settings(line: &Line<'_>) -> Result<Settings> {
    let default = Settings::default();
    Ok(Settings {
        voters: line.number("voters", default.voters)?,
        learner_expiry_ms: line.number("learner_expiry_ms", default.learner_expiry_ms)?,
        audit_entries_max: line.number("audit", default.audit_entries_max)?,
    })
}

fn spec(line: &Line<'_>, text: &str) -> Result<MemberSpec> {
    Ok(MemberSpec {
        name: name(text)?,
        address: line.options.get("address").map_or_else(|| format!("{text}:7400"), |&address| address.to_owned()),
        gateway_address: format!("{text}:8080"),
        gateway_tls_address: String::new(),
        ops_address: format!("{text}:9400"),
        zone: line.options.get("zone").map(|&zone| zone.to_owned()),
        version: line.options.get("version").unwrap_or(&"0.1.0").to_string(),
        feature_level_max: line.number("supports", 1)?,
    })
}

/// `job:acme:hash`
fn imported(word: &str) -> Result<ImportedKey> {
    let [id, consumer, hash] = word.split(':').collect::<Vec<_>>()[..] else {
        return Err(format!("{word} is not id:consumer:hash"));
    };
    let (id, consumer, hash) = (key_id(id)?, name(consumer)?, SecretHash(bytes(hash)?));
    Ok(ImportedKey { id, consumer, label: None, scopes: BTreeSet::new(), hash, not_after: None })
}

/// `+route/orders=text`, `-route/orders`, `+consumer/acme=reader,env:prod`, `-consumer/acme`
fn change(word: &str) -> Result<Change> {
    let (sign, rest) = word.split_at(1);
    let (path, value) = rest.split_once('=').unwrap_or((rest, ""));
    let (kind, subject) = path.split_once('/').ok_or_else(|| format!("{word} has no kind"))?;
    let name = name(subject)?;
    if kind == "consumer" {
        return match sign {
            "-" => Ok(Change::DeleteConsumer { name }),
            _ => Ok(Change::PutConsumer { name, spec: consumer(value)? }),
        };
    }
    if kind == "limit" {
        return match sign {
            "-" => Ok(Change::DeleteDocument { kind: Kind::Limit, name }),
            _ => Ok(Change::PutLimit { name, bytes: value.as_bytes().into(), rule: rule(value)? }),
        };
    }
    let kind = Kind::ALL.into_iter().find(|one| one.as_str() == kind).ok_or_else(|| format!("{kind} is not a kind"))?;
    // `bytes:N` stands for a document of that length.
    let bytes = match value.strip_prefix("bytes:") {
        Some(length) => vec![b'x'; parse(length)?],
        None => value.as_bytes().to_vec(),
    };
    match sign {
        "-" => Ok(Change::DeleteDocument { kind, name }),
        _ => Ok(Change::PutDocument { kind, name, bytes: bytes.into() }),
    }
}

fn rule(text: &str) -> Result<Rule> {
    let mut parts = text.split([':', '/']);
    let mut next = || parts.next().ok_or_else(|| format!("{text} is not a rule"));
    match (next()?, next()?, next()?) {
        ("rate", tokens, period) => {
            let burst = parse(next()?)?;
            Ok(Rule::Rate(Rate { tokens: parse(tokens)?, period_us: duration(period)? * 1_000, burst }))
        }
        ("quota", amount, window) => {
            let window = match window {
                "minute" => Window::Minute,
                "hour" => Window::Hour,
                "day" => Window::Day,
                "month" => Window::Month,
                _ => return Err(format!("{window} is not a window")),
            };
            Ok(Rule::Quota(Quota { amount: parse(amount)?, window }))
        }
        _ => Err(format!("{text} is not a rule")),
    }
}

fn bucket_id(text: &str) -> Result<BucketId> {
    let (limit, subject) = text.split_once('/').ok_or_else(|| format!("{text} is not a bucket"))?;
    Ok(BucketId { limit: name(limit)?, subject: subject.as_bytes().into() })
}

fn want(text: &str) -> Result<Want> {
    let (parts, requests) = text.split_once(':').ok_or_else(|| format!("{text} is not a want"))?;
    let part = |text: &str| {
        let (bucket, cost) = text.split_once('*').unwrap_or((text, "1"));
        Ok(Part { bucket: bucket_id(bucket)?, cost: parse(cost)? })
    };
    let (waiting, ahead) = requests.split_once('+').unwrap_or((requests, "0"));
    let parts = parts.split(',').map(part).collect::<Result<_>>()?;
    Ok(Want { parts, waiting: parse(waiting)?, ahead: parse(ahead)? })
}

fn report(text: &str) -> Result<(BucketId, Spent)> {
    let parts: Vec<&str> = text.split(':').collect();
    let close = match parts.get(3) {
        None => false,
        Some(&"close") => true,
        Some(other) => return Err(format!("{other} is not close")),
    };
    match parts.as_slice() {
        [bucket, allowance, spent, ..] => {
            Ok((bucket_id(bucket)?, Spent { allowance: parse(allowance)?, spent: parse(spent)?, close }))
        }
        _ => Err(format!("{text} is not a report")),
    }
}

fn consumer(text: &str) -> Result<ConsumerSpec> {
    let mut spec = ConsumerSpec { roles: BTreeSet::new(), attributes: BTreeMap::new() };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part.split_once(':') {
            Some((attribute, value)) => drop(spec.attributes.insert(name(attribute)?, value.to_owned())),
            None => drop(spec.roles.insert(name(part)?)),
        }
    }
    Ok(spec)
}
