"""A mistake is one line in the user's words, status 2, no traceback, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import SMALL, run

USER_CODE = """
def raises(prompts, completions, **columns):
    raise KeyError("no such thing")

def short(prompts, completions, **columns):
    return [1.0]

def nan(prompts, completions, **columns):
    return [float("nan")] * len(prompts)

def text(prompts, completions, **columns):
    return ["good"] * len(prompts)

def nothing(prompts, completions, **columns):
    return [None] * len(prompts)
"""

# arguments, what the line must say
COMPOSITION = [
    # the choice of a part, an algorithm or an experiment
    ("algorithm=remixx", "algorithm called 'remixx' | 'remix' | rlkit list algorithm"),
    ("algorithm=null", "algorithm=null | algorithm=<name>"),
    ("algorithm=[grpo,ppo]", "exactly one algorithm"),
    ("loss=remx", "loss called 'remx' | 'remix' | rlkit list loss"),
    ("loss=[ppo,grpo]", "loss=[ppo,grpo] | exactly one loss"),
    ("loss=ppo,grpo", "loss=ppo,grpo has several values | -m"),
    ("loss={name:ppo}", "loss={name:ppo} | exactly one loss"),
    ("~loss", "~loss is not possible"),
    ("buffer=fiffo", "buffer called 'fiffo' | 'fifo'"),
    ("anchor=kl_convx", "anchor called 'kl_convx' | 'kl_convex'"),
    ("task=arithmatic", "task called 'arithmatic' | 'arithmetic'"),
    ("task=[arithmetic,jsonl]", "exactly one task"),
    ("rollout=hff", "rollout called 'hff' | 'hf'"),
    ("reward=[mathh]", "reward called 'mathh' | 'math'"),
    ("reward=null", "reward=null | reward=[]"),
    ("correction=[tis,tiss]", "correction called 'tiss' | 'tis'"),
    ("correction=null", "correction=null | correction=[]"),
    ("tracker=[wandbb]", "tracker called 'wandbb' | 'wandb'"),
    ("tracker=3", "tracker=3 | tracker=[<name>]"),
    ("+experiment=smollm2", "experiment called 'smollm2' | smollm2_cpu | rlkit list experiment"),
    ("experiment=smollm2_cpu", "+experiment=<name>"),
    ("+sweep=remix", "sweep | wandb sweep"),
    # a key that is not there
    ("algoritm=grpo", "algoritm | 'algorithm'"),
    ("steps=3", "unknown key steps | 'train.steps'"),
    ("+steps=3", "unknown key steps | 'train.steps'"),
    ("lr=3", "unknown key lr; here it is train.learning_rate"),
    ("train.learning_rat=1e-4", "train.learning_rat | 'train.learning_rate'"),
    (
        "train.optim=adam",
        "train.optim | more, see `python -m rlkit.run --cfg job -p train`",
    ),
    ("train.foo.bar=1", "unknown key train.foo. | Known:"),
    ("model.path=x", "model.path | name"),
    ("checkpoint.folder=x", "checkpoint.folder | Known: every, keep"),
    ("loss.epslon=0.3", "loss.epslon | 'loss.epsilon'"),
    ("loss.foo=1", "loss.foo | loss=remix | centre"),
    ("loss.on_policy_clip=true", "no 'on_policy_clip' | loss=exgrpo, loss=luffy"),
    ("buffer.kappa=1 buffer=on_policy", "no 'kappa' | buffer=fifo"),
    ("rollout.max_tokens=3", "rollout.max_tokens | max_completion_length"),
    ("correction.tis.is_max=2", "correction.tis.is_max | correction=[tis]"),
    ("reward.math.weight=2", "reward.math.weight | reward=[math]"),
    ("correction=[tis] correction.is_max=2", "correction.is_max | 'correction.tis.is_max'"),
    ("correction=[tis] correction.tis.ismax=5", "'correction.tis.is_max' | level"),
    ("tracker=[tensorboard] tracker.tensorboard.dir=x", "tracker.tensorboard.dir | histograms"),
    # how an override is written
    ("=3", "'=3' is not an override | key=value"),
    ("train.=3", "train.=3 cannot be read"),
    (
        "train.learning_rate",
        "'train.learning_rate' is not an override | train.learning_rate=<value>",
    ),
    ("train.steps={", "train.steps={ cannot be read | bracket"),
    ("model.name=a=b", "model.name=a=b cannot be read | quotes"),
    ("--steps 3", "--steps | train.steps=3"),
    ("--train.steps=3", "--train.steps=3 | train.steps=3"),
    ("seed=${nothing}", "'nothing' not found"),
    # the run's own settings
    ("seed=-1", "seed=-1 | greater than or equal to 0"),
    ("output_dir=null", "output_dir=null | text"),
    ("output_dir=/proc/no/such", "output_dir=/proc/no/such cannot be used"),
    ("resume=/no/such/folder", "resume=/no/such/folder | auto"),
    ("resume=null", "resume=null | text"),
    ("dry_run=maybe", "dry_run=maybe | true or false"),
    ("plugins=[./nothing.py]", "/nothing.py does not exist"),
    ("plugins=[no_such_module]", "no module named 'no_such_module'"),
    ("stages=3", "stages=3 | stages=[{steps: 20}]"),
    ("stages=[3]", "stages.0=3 | {steps: 20"),
    ("stages=[{}]", "stages.0.steps is missing"),
    ("stages=[{steps:2,overrides:[algorithm=sft]}]", "stages= | cannot be read | quotes"),
    ("stages=[{steps:2,overrides:['algorithm=sftt']}]", "algorithm called 'sftt' | 'sft'"),
    ("stages=[{steps:2,overrides:['--steps']}]", "--steps"),
    ("model=gpt2", "model=gpt2 | section | model.name="),
    ("model.name=/no/such/model", "model.name=/no/such/model: there is no folder /no/such"),
    ("model.name=/", "model.name=/ is not a model folder | config.json"),
    ("output_dir=", "output_dir"),
    ("model.name=model.gguf", "model.name=model.gguf | does not exist"),
    ("model.dtype=float16", "model.dtype: float16 cannot train | use bfloat16"),
    ("model.autocast=float16", "model.autocast: float16 cannot train | use bfloat16"),
    ("train.lr_scale={layers:0}", "train.lr_scale.layers=0 | greater than 0"),
    ("train.lr_scale={layers.7.:2}", "train.lr_scale | 'layers.7.' | policy.model.embed_tokens"),
    ("train.optimizer=adam", "train.optimizer=adam | 'adamw'"),
    ("model.dtype=float8", "model.dtype=float8 | 'bfloat16'"),
    ("model.device=gpu", "model.device=gpu | auto, cpu, cuda or cuda:N"),
    ("model.device=cuda:99", "model.device=cuda:99 | CUDA | cpu"),
    ("model.gradient_checkpointing=perhaps", "model.gradient_checkpointing | true or false"),
    ("train=3", "train=3 | section | train.steps="),
    ("~train", "~train is not possible"),
    ("train.steps=null", "train.steps=null | an integer"),
    ("train.steps=0", "train.steps=0 | greater than or equal to 1"),
    ("train.steps=1,2", "train.steps=1,2 has several values"),
    ("train.steps={kind:linear,start:1,end:2}", "train.steps={kind:linear | no | schedule"),
    ("train.weight_decay={kind:linear,end:1}", "train.weight_decay | a number | schedule"),
    ("train.learning_rate=nan", "train.learning_rate=nan | finite"),
    ("train.learning_rate={kind:wave}", "train.learning_rate.kind=wave | cosine"),
    ("train.lr_scheduler_type=cosin", "train.lr_scheduler_type=cosin | 'cosine'"),
    ("train.prompts_per_step=10 train.minibatches=4", "train.prompts_per_step=10 | change one"),
    ("eval=null", "eval=null | section"),
    ("eval.every=0", "eval.every=0 | greater than or equal to 1"),
    ("eval.k=4", "eval.k=4 | eval.samples (now 1)"),
    ("eval.task=jsonl", "embedded | model.name"),
    # the settings of parts
    ("loss.epsilon=[0.1,0.2]", "loss.epsilon=[0.1,0.2] | a number"),
    ("loss.epsilon={kind:linear,start:0.1,end:-1}", "loss.epsilon=-1.0 | greater than 0"),
    ("loss.epsilon={kind:piecewise,points:[[5,1],[1,2]]}", "loss.epsilon.points | increasing"),
    ("loss.aggregation={kind:linear}", "loss.aggregation | 'token-mean'"),
    ("algorithm=grpo loss.clip_low=-0.2", "loss.clip_low=-0.2 | greater than"),
    ("loss=exgrpo loss.clip_low=2", "loss.clip_low=2 | less than or equal to 1"),
    ("loss=repo loss.epsilon=0.1", "loss has no 'epsilon' | loss="),
    ("loss=spear loss.clip_low=null", "loss.clip_low=null | a number"),
    ("loss=luffy loss.shaping_gamma=-1", "loss.shaping_gamma=-1 | greater than 0"),
    ("loss=online_dpo anchor=none", "'base' | another anchor"),
    ("buffer.replay_fraction=1.0", "buffer.replay_fraction=1.0 | less than 1"),
    ("buffer.age_law=optimall", "buffer.age_law=optimall | 'optimal'"),
    ("buffer.age_law=optimal buffer.kappa=2", "buffer.kappa=2 | less than or equal to 1"),
    ("buffer.age_weights=[1,2,3]", "buffer.age_weights=[1.0, 2.0, 3.0] | 2 ages"),
    ("buffer.storage=disc", "buffer.storage=disc | 'disk'"),
    ("buffer=expert", "buffer=expert | loss=remix | luffy"),
    ("buffer=expert loss=sft buffer.overlong=skip", "buffer.overlong=skip | 'drop'"),
    ("buffer=mix buffer.first=fifo", "buffer.first=fifo | {a:1}"),
    ("buffer=mix buffer.second={name:fiffo}", "buffer called 'fiffo' | 'fifo'"),
    ("buffer=mix buffer.first={name:fifo,window:0}", "+buffer.first.window=<value>"),
    ("buffer=mix +buffer.first={name:fifo,window:0}", "buffer.first.window=0"),
    ("buffer=spear buffer.size=0", "buffer.size=0 | greater than or equal to 1"),
    ("buffer=adaptive buffer.score_min=8", "buffer.score_min=8.0 | score_max=7.0"),
    ("buffer=zero_variance_filler buffer.capacity=many", "buffer.capacity=many | an integer"),
    ("buffer=zero_variance_filler buffer.storage=disk", "buffer has no 'storage' | buffer=fifo"),
    ("buffer=prompt_replay buffer.low=0.9", "buffer.low=0.9 | high=0.75"),
    ("buffer=buffer_matters buffer.c1=0.1", "buffer.c1=0.1 | a list"),
    ("buffer=buffer_matters buffer.c1=[0.1]", "buffer.c1=[0.1] | too few"),
    ("buffer=buffer_matters buffer.c1=[0.1,0.2,0.3]", "buffer.c1=[0.1,0.2,0.3] | 2 values"),
    ("buffer=buffer_matters buffer.c1={kind:linear}", "buffer.c1 must be a list"),
    ("buffer=rlep buffer.pool=nothing.jsonl", "buffer=rlep: nothing.jsonl does not exist"),
    ("anchor.beta=-0.1", "anchor.beta=-0.1 | greater than or equal to 0"),
    ("anchor=ema anchor.decay=1", "anchor.decay=1 | less than 1"),
    ("schedule.at=0", "schedule.at=0 | greater than or equal to 1"),
    ("schedule.at={kind:linear,start:1,end:2}", "schedule.at={kind:linear | schedule"),
    ("schedule=qdagger schedule.weight=-1", "schedule.weight=-1"),
    ("advantage=gdpo advantage.weights=[1,2]", "advantage.weights must be keys and values"),
    ("advantage=gdpo advantage.weights={math:1}", "+advantage.weights.math=<value>"),
    ("correction=[tis] correction.tis.is_min=5", "correction.tis.is_min=5.0 | is_max=2.0"),
    ("correction=[erc_mining] correction.erc_mining.n=1", "correction.erc_mining.n | Known: m"),
    (
        "correction=[erc_counteraction] correction.erc_counteraction.form=x",
        "correction.erc_counteraction.form=x",
    ),
    ("reward=[exact] reward.exact.weight=heavy", "reward.exact.weight=heavy | a number"),
    ("reward=[exact] reward.exact.limit=0.1", "reward.exact.limit | no reward without a limit"),
    ("reward=[exact,math] reward.math.multiplier=1", "reward.math.multiplier | set limit"),
    (
        "reward=[exact,overlong] reward.overlong.buffer=600",
        "reward.overlong.buffer=600 | max_length=14",
    ),
    ("tracker=[wandb] tracker.wandb.mode=off", "tracker.wandb.mode=off | 'offline'"),
    ("rollout.num_generations=1", "rollout.num_generations=1 | 2 or more"),
    ("reward=[math,math]", "reward=[math,math] | 'math' twice"),
    ("correction=[tis,tis]", "correction=[tis,tis] | 'tis' twice"),
    ("eval.template=chatt", "eval.template=chatt | 'chat'?"),
    ("rollout.temperature=0", "rollout.temperature=0 | greater than 0"),
    ("rollout.temperature={kind:linear,start:1}", "rollout.temperature={kind:linear | schedule"),
    ("rollout.stop=END", "rollout.stop=END | a list"),
    ("task.operands=9", "task.operands=9 | less than or equal to 6"),
    ("task.overlong=cut", "task.overlong=cut | 'drop'"),
    ("task=reasoning_gym", "embedded | model.name"),
    ("task=jsonl task.eval_fraction=1", "task.eval_fraction=1 | less than 1"),
    # a user's own parts
    ("loss=no_such_module:Loss", "no module named 'no_such_module'"),
    ("loss=torch:Tensor", "torch:Tensor is not a part"),
    ("loss=./nothing.py:Loss", "./nothing.py does not exist"),
]

LONGEST = 250
"""Characters of a line that a person still reads."""


def one_line(result_err: str) -> str:
    lines = [line for line in result_err.splitlines() if line.strip()]
    assert "Traceback" not in result_err, result_err
    assert len(lines) == 1, result_err
    assert lines[0].startswith("rlkit: ")
    assert len(lines[0]) <= LONGEST, lines[0]
    return lines[0]


@pytest.mark.parametrize(("arguments", "said"), COMPOSITION, ids=[case[0] for case in COMPOSITION])
def test_a_wrong_configuration(arguments: str, said: str, tmp_path: Path) -> None:
    folder = () if arguments.startswith("output_dir") else ("output_dir=out",)
    result = run(*arguments.split(), *folder, cwd=tmp_path)
    assert result.status == 2, result.err + result.out
    line = one_line(result.err)
    for words in said.split(" | "):
        assert words in line, line
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_name_in_a_sweep_starts_no_run(tmp_path: Path) -> None:
    result = run("-m", "algorithm=remixx,grpo", "output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert "no algorithm called 'remixx'" in one_line(result.err)
    assert list(tmp_path.iterdir()) == []


def test_a_late_mistake_in_a_sweep_starts_no_run(tmp_path: Path) -> None:
    """Options may stand behind settings too."""
    result = run("algorithm=grpo", "train.steps=1", "anchor.beta=0.1,-1", "-m", cwd=tmp_path)
    assert result.status == 2
    line = one_line(result.err)
    assert "job 2 of 2 (anchor.beta=-1) cannot run, so none was started" in line
    assert "greater than or equal to 0" in line
    assert list(tmp_path.iterdir()) == []


def test_a_key_given_twice_is_told_and_the_last_counts(tmp_path: Path) -> None:
    result = run("train.steps=3", "dry_run=true", "train.steps=2", cwd=tmp_path)
    assert result.status == 0 and "2 training steps in all" in result.out
    assert result.out.startswith("train.steps is given 2 times; the last counts: train.steps=2\n")
    shown = run("--cfg", "job", "-p", "train.steps", "seed=1", "seed=2", cwd=tmp_path)
    assert "given" not in shown.out + shown.err


def test_stages_are_read_as_a_file_has_them(tmp_path: Path) -> None:
    stages = "[{steps: 2, overrides: [algorithm=sft]}, {steps: 3, overrides: [algorithm=grpo]}]"
    result = run(f"stages: {stages}", "dry_run=true", cwd=tmp_path)
    assert result.status == 0, result.err
    assert "Stage 2 of 2" in result.out and "loss=grpo" in result.out


PLUGINS = {
    "syntax": ("x = 1\ndef broken(:\n", "SyntaxError | syntax.py, line 2"),
    "raises": ("x = 1\nraise RuntimeError('my own words')\n", "my own words | raises.py, line 2"),
    "needs": ("import no_such_library\n", "'no_such_library' | needs.py, line 1"),
    "kind": (
        "from rlkit.registry import register\n@register('los', 'x')\nclass X: pass\n",
        "no kind of part called 'los' | 'loss'",
    ),
}


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("argument", ["plugins=[./{}.py]", "plugins=[{}]", "loss=./{}.py:Loss"])
def test_a_plugin_that_fails_is_told_its_own_line_and_not_ours(
    name: str, argument: str, tmp_path: Path
) -> None:
    code, said = PLUGINS[name]
    (tmp_path / f"{name}.py").write_text(code)
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    result = run(argument.format(name), "output_dir=out", cwd=tmp_path, env=env)
    assert result.status == 2
    line = one_line(result.err)
    for words in said.split(" | "):
        assert words in line, line
    assert not (tmp_path / "out").exists()


def test_the_traceback_of_a_plugin_is_there_for_the_asking(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(PLUGINS["raises"][0])
    result = run("plugins=[./raises.py]", cwd=tmp_path, env={"RLKIT_DEBUG": "1"})
    assert "Traceback" in result.err and "RuntimeError: my own words" in result.err


def test_a_file_without_the_part_lists_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text("class Loose:\n    pass\n")
    result = run("loss=./parts.py:Los", "output_dir=out", cwd=tmp_path)
    assert "./parts.py has no 'Los'. Did you mean 'Loose'? Known: Loose" in one_line(result.err)
    result = run("loss=./parts.py:Loose", "output_dir=out", cwd=tmp_path)
    assert "./parts.py:Loose is not a part: a loss is a class" in one_line(result.err)
    assert not (tmp_path / "out").exists()


# content of demonstrations.jsonl, what the line must say
DEMONSTRATIONS = [
    (None, "demonstrations.jsonl does not exist"),
    ("", "demonstrations.jsonl is empty"),
    ("{broken", "demonstrations.jsonl line 1 is not valid JSON"),
    ("[1, 2]", "demonstrations.jsonl line 1 is not an object"),
    ('{"prompt": "1+1=", "solutoin": "2"}', "'solution'. Did you mean 'solutoin'?"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("content", "said"), DEMONSTRATIONS, ids=[d[1] for d in DEMONSTRATIONS])
def test_wrong_demonstrations(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "demonstrations.jsonl").write_text(content)
    path = "buffer.path=demonstrations.jsonl"
    result = run("buffer=expert", "loss=sft", path, "output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert said in one_line(result.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("resume", ["folder", "file"])
def test_what_is_no_checkpoint_is_not_resumed(resume: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    result = run(f"resume={resume}", "output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert resume in one_line(result.err)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    result = run("output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert "output_dir=out cannot be used" in one_line(result.err)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["plateau", "qdagger"])
def test_a_schedule_is_told_the_metrics_there_are(schedule: str, tmp_path: Path) -> None:
    metric = "schedule.metric='eval/pas@1'"
    result = run(*SMALL, f"schedule={schedule}", metric, "output_dir=out", cwd=tmp_path)
    assert result.status == 2
    line = one_line(result.err)
    assert "schedule.metric" in line and "'eval/pas@1'" in line and "'eval/pass@1'" in line


ROWS = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(20)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on disk, so that a jsonl task can be used."""
    from tests.tiny import make_policy

    folder = tmp_path_factory.mktemp("model")
    policy = make_policy()
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


# content of data.jsonl (None = no file), further arguments, what the line must say
DATA = [
    (None, [], ["data.jsonl"]),
    ("", [], ["empty", "data.jsonl"]),
    (json.dumps({"question": "1+1=", "answer": "2"}), [], ["prompt", "question"]),
    (json.dumps({"prompt": "1+1=", "reply": "2"}), [], ["answer", "reply"]),
    (json.dumps(ROWS[0]) + "\n{broken\n", [], ["data.jsonl", "2"]),
    (
        "\n".join(map(json.dumps, ROWS)),
        ["rollout.max_prompt_length=3"],
        ["max_prompt_length=3", "task.overlong"],
    ),
    ("\n".join(map(json.dumps, ROWS)), ["task.answer_column=anser"], ["anser", "answer"]),
    (
        "\n".join(map(json.dumps, ROWS)),
        ["reward=./user.py:raises"],
        ["raises", "KeyError", "no such thing"],
    ),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:short"], ["short", "1 value", "32"]),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:nan"], ["nan"]),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:text"], ["text", "good"]),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:missing"], ["missing", "user.py"]),
]


@pytest.mark.parametrize(
    ("content", "arguments", "said"), DATA, ids=[" ".join(d[2])[:30] for d in DATA]
)
def test_wrong_data_or_a_wrong_reward(
    content: str | None, arguments: list[str], said: list[str], tmp_path: Path, model: Path
) -> None:
    if content is not None:
        (tmp_path / "data.jsonl").write_text(content)
    (tmp_path / "user.py").write_text(USER_CODE)
    result = run(
        "algorithm=grpo",
        "task=jsonl",
        "task.path=data.jsonl",
        f"model.name={model}",
        "reward=exact",
        *SMALL,
        *arguments,
        "output_dir=out",
        cwd=tmp_path,
    )
    assert result.status == 2, result.err + result.out
    line = one_line(result.err)
    for word in said:
        assert word in line, line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text('{"step": 1}\n')
    result = run("output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert "already holds a run" in one_line(result.err) and "resume=auto" in result.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.jsonl"]


def test_no_reward_that_applies_is_said_after_a_few_tries(tmp_path: Path, model: Path) -> None:
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "user.py").write_text(USER_CODE)
    result = run(
        "algorithm=grpo",
        "task=jsonl",
        "task.path=data.jsonl",
        f"model.name={model}",
        "reward=./user.py:nothing",
        *SMALL,
        "output_dir=out",
        cwd=tmp_path,
    )
    assert result.status == 2
    assert "responses with a reward" in one_line(result.err)
