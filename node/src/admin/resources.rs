//! Consumers and documents. What they mean is known to `resource`; here files are planned against the registry, applied
//! as one command that names what it was planned against, and planned again if somebody was faster.

use super::{
    Admin, Caller, aside, caller,
    cluster::{crossed, now},
    name,
    problem::Problem,
    write::{Done, Write},
};
use crate::resource::{self, Action, DeleteError, Imagined, Noun, Plan, Presented};
use machine::{Command, Refusal, Registry, View, cap, outcome::Noun as Subject, resource::Change};
use proto::admin::{
    ApplyReply, ApplyRequest, DeleteResourceRequest, ExplainReply, ExplainRequest, ExportReply, ExportRequest,
    GetResourceRequest, LimitUsageReply, LimitUsageRequest, LimitUse, ListResourcesReply, ListResourcesRequest, Place,
    ResourceChange, ResourceFile, ResourceInfo, SetConsumerEnabledRequest, ValidateReply, ValidateRequest, WriteResult,
    resources_server::Resources,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// A file that crossed another change is planned again so often.
const ATTEMPTS_MAX: usize = 8;
/// Bytes of a resource file: what it makes must fit one log entry.
const FILE_BYTES_MAX: usize = 2 * cap::APPLY_BYTES_MAX;
/// Bytes of a URL to explain.
const URL_BYTES_MAX: usize = 64 * 1024;

#[tonic::async_trait]
impl Resources for Admin {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyReply>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let file = parse(request.file).await?;
        if request.dry_run {
            let view = self.read().await?;
            let plan = plan(&view, &file, request.prune).await?;
            let result = WriteResult { revision: view.registry.revision, ..WriteResult::default() };
            return Ok(Response::new(reply(plan, result)));
        }
        let write = Write::new(request.write)?;
        let (done, plan) = self
            .apply_planned(&caller, write, |view| {
                let file = Arc::clone(&file);
                async move {
                    let plan = plan(&view, &file, request.prune).await?;
                    Ok((plan.changes.clone(), plan))
                }
            })
            .await?;
        Ok(Response::new(reply(plan, done.result())))
    }

    async fn validate(&self, request: Request<ValidateRequest>) -> Result<Response<ValidateReply>, Status> {
        let file = parse(request.into_inner().file).await?;
        let plan = plan(&self.read().await?, &file, false).await?;
        Ok(Response::new(ValidateReply {
            resources: u32::try_from(file.len()).unwrap_or(u32::MAX),
            warnings: plan.warnings.into_iter().map(place).collect(),
        }))
    }

    async fn export(&self, _: Request<ExportRequest>) -> Result<Response<ExportReply>, Status> {
        let view = self.read().await?;
        let revision = view.registry.revision;
        let text = aside(move || resource::export(&view.registry)).await?;
        Ok(Response::new(ExportReply { text, revision }))
    }

    async fn list(&self, request: Request<ListResourcesRequest>) -> Result<Response<ListResourcesReply>, Status> {
        let noun = noun(&request.into_inner().kind)?;
        let view = self.read().await?;
        let resources = aside(move || list(&view.registry, noun)).await?;
        Ok(Response::new(ListResourcesReply { resources }))
    }

    async fn get(&self, request: Request<GetResourceRequest>) -> Result<Response<ResourceInfo>, Status> {
        let request = request.into_inner();
        let noun = noun(&request.kind)?;
        let view = self.read().await?;
        let info = info(&view.registry, noun, &request.name)
            .ok_or_else(|| Problem::not_found(format!("there is no {noun} {:?}", request.name)))?;
        Ok(Response::new(info))
    }

    async fn delete(&self, request: Request<DeleteResourceRequest>) -> Result<Response<WriteResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let noun = noun(&request.kind)?;
        let name = name(&request.name)?;
        let write = Write::new(request.write)?;
        let expected = write.if_revision;
        // The precondition is on the one resource; that nothing else changed in between is what planning again is for.
        let write = write.without_precondition();
        let (done, ()) = self
            .apply_planned(&caller, write, |view| {
                let name = name.clone();
                async move {
                    let described = resource::document_json(&view.registry, noun, name.as_str());
                    if let (Some(expected), Some(described)) = (expected, described)
                        && described.revision != expected
                    {
                        let actual = described.revision;
                        return Err(Refusal::Conflict { noun: subject(noun), expected, actual }.into());
                    }
                    let changes =
                        resource::delete(&view.registry, noun, name.as_str()).map_err(|error| match error {
                            DeleteError::NotFound => {
                                Problem::not_found(format!("there is no {noun} {:?}", name.as_str()))
                            }
                            DeleteError::Referenced(places) => {
                                let names: Vec<String> = places.iter().map(|place| place.field.clone()).collect();
                                Problem::refused(
                                    "referenced",
                                    format!("the {noun} {:?} is needed by {}", name.as_str(), names.join(", ")),
                                )
                                .places(places.into_iter().map(place).collect())
                                .hint("delete or change these first")
                            }
                        })?;
                    Ok((changes, ()))
                }
            })
            .await?;
        Ok(Response::new(done.result()))
    }

    async fn set_consumer_enabled(
        &self,
        request: Request<SetConsumerEnabledRequest>,
    ) -> Result<Response<WriteResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        let command = Command::SetConsumerEnabled {
            name: name(&request.name)?,
            enabled: request.enabled,
            precondition: write.precondition(),
        };
        Ok(Response::new(self.write(&caller, &write, command).await?.result()))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainReply>, Status> {
        let request = request.into_inner();
        if request.url.len() > URL_BYTES_MAX || request.method.is_empty() {
            return Err(Problem::invalid("explain needs a method and a URL of bounded length").into());
        }
        let view = self.read().await?;
        let now = now(&view, self.raft());
        let key_id = match request.key_id.as_str() {
            "" => None,
            text => {
                Some(text.parse().map_err(|error: machine::key::InvalidKeyId| Problem::invalid(error.to_string()))?)
            }
        };
        let explained = aside(move || {
            let credential = match (key_id, request.key.as_str()) {
                (Some(id), _) => Presented::Id(id),
                (None, "") => Presented::Nothing,
                (None, text) => Presented::Text(text),
            };
            let imagined = Imagined { credential, method: &request.method, url: &request.url };
            resource::explain(&view.registry, now, &imagined)
        })
        .await?;
        Ok(Response::new(ExplainReply {
            allowed: explained.allowed,
            stage: explained.stage.to_owned(),
            reason: explained.reason,
            route: explained.route.map(|name| name.to_string()).unwrap_or_default(),
            consumer: explained.consumer.map(|name| name.to_string()).unwrap_or_default(),
            policies: explained.policies,
            limits: explained.limits.into_iter().map(limit_use).collect(),
            upstream: explained.upstream.map(|name| name.to_string()).unwrap_or_default(),
        }))
    }

    async fn limit_usage(&self, request: Request<LimitUsageRequest>) -> Result<Response<LimitUsageReply>, Status> {
        Ok(Response::new(self.usage(request.into_inner()).await?))
    }
}

impl Admin {
    /// Plans changes against the state and applies them if it has not changed since; plans again if it has.
    async fn apply_planned<T, F>(
        &self,
        caller: &Caller,
        mut write: Write,
        plan: impl Fn(Arc<View>) -> F + Send,
    ) -> Result<(Done, T), Problem>
    where
        F: Future<Output = Result<(Vec<Change>, T), Problem>> + Send,
    {
        for attempt in 0..ATTEMPTS_MAX {
            let view = self.read().await?;
            let actual = view.registry.resources_revision;
            if let Some(expected) = write.if_revision
                && expected != actual
            {
                return Err(Refusal::Conflict { noun: Subject::Resources, expected, actual }.into());
            }
            let (changes, planned) = plan(view).await?;
            let command = Command::ApplyResources { validated_against: actual, changes };
            match self.write(caller, &write, command).await {
                Err(problem) if problem.is_conflict() && write.if_revision.is_none() => {
                    write = write.step(&format!("apply {attempt}"));
                }
                Err(problem) => return Err(problem),
                Ok(done) => return Ok((done, planned)),
            }
        }
        Err(crossed(Subject::Resources))
    }
}

async fn parse(file: Option<ResourceFile>) -> Result<Arc<resource::ResourceFile>, Problem> {
    let file = file.ok_or_else(|| Problem::invalid("the field `file` is missing"))?;
    if file.text.len() > FILE_BYTES_MAX {
        return Err(Problem::invalid(format!("a resource file has at most {FILE_BYTES_MAX} bytes")));
    }
    let shown = file.name.clone();
    aside(move || resource::parse(&file.name, &file.text)).await?.map(Arc::new).map_err(|places| wrong(&shown, places))
}

async fn plan(view: &Arc<View>, file: &Arc<resource::ResourceFile>, prune: bool) -> Result<Plan, Problem> {
    let (view, file) = (Arc::clone(view), Arc::clone(file));
    let shown = file.name.clone();
    aside(move || resource::plan(&view.registry, &file, prune)).await?.map_err(|places| wrong(&shown, places))
}

fn wrong(file: &str, places: Vec<resource::Place>) -> Problem {
    let message = match places.as_slice() {
        [] => format!("{file} is not in order"),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    };
    Problem::invalid_places(message, places.into_iter().map(place).collect())
}

fn place(place: resource::Place) -> Place {
    let resource::Place { file, line, column, field, message } = place;
    Place { file, line, column, field, message }
}

fn limit_use(counted: resource::Counted) -> LimitUse {
    let resource::Counted { limit, subject, per, rule, cost, mode, scope } = counted;
    LimitUse { limit: limit.to_string(), subject, per, rule, cost, mode: mode.to_owned(), scope: scope.to_owned() }
}

fn reply(plan: Plan, result: WriteResult) -> ApplyReply {
    ApplyReply {
        result: Some(result),
        changes: plan
            .listing
            .into_iter()
            .map(|change| ResourceChange {
                kind: change.noun.as_str().to_owned(),
                name: change.name.to_string(),
                action: Action::as_str(change.action).to_owned(),
                diff: change.diff,
            })
            .collect(),
        warnings: plan.warnings.into_iter().map(place).collect(),
    }
}

pub(super) fn noun(text: &str) -> Result<Noun, Problem> {
    text.parse().map_err(|error: resource::UnknownNoun| Problem::invalid(error.to_string()))
}

const fn subject(noun: Noun) -> Subject {
    match noun {
        Noun::Consumer => Subject::Consumer,
        Noun::Document(kind) => Subject::Document(kind),
    }
}

fn list(registry: &Registry, noun: Noun) -> Vec<ResourceInfo> {
    let names: Vec<String> = match noun {
        Noun::Consumer => registry.consumers.keys().map(ToString::to_string).collect(),
        Noun::Document(kind) => registry.documents_of(kind).map(|(name, _)| name.to_string()).collect(),
    };
    names.iter().filter_map(|name| info(registry, noun, name)).collect()
}

pub(super) fn info(registry: &Registry, noun: Noun, name: &str) -> Option<ResourceInfo> {
    let described = resource::document_json(registry, noun, name)?;
    let consumer = match noun {
        Noun::Consumer => registry.consumers.get(name),
        Noun::Document(_) => None,
    };
    Some(ResourceInfo {
        kind: noun.as_str().to_owned(),
        name: name.to_owned(),
        revision: described.revision,
        json: described.json,
        enabled: consumer.is_some_and(|consumer| consumer.enabled),
        keys: consumer
            .map_or(0, |consumer| u64::try_from(registry.keys_of(&consumer.name).count()).unwrap_or(u64::MAX)),
    })
}
