"""What is measured."""

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import numpy as np
import psutil

from benchmarks.load.loops import Loop, beside_each_other, closed, opened, posting, steady
from benchmarks.load.project import SHOPS, Aliases, Project, free_port, shop

ROUNDS, SECONDS = 5, 6.0
STEADY = 40.0  # labels a second, and half as many answers
TENANTS = (1, 8, 64, 256, 1_000)
# What each server is asked, in turn.
LABELLED = [
    f"{start} {end}" for start in ("A lovely", "Dull", "我很喜欢") for end in ("film.", "story, 无聊。", "tour")
]
ASKED = [f"{start}{end}" for start in ("Translate into Chinese: ", "请重复：") for end in ("apple", "water", "house")]


def chat(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def rows(column: str, texts: Sequence[str]) -> Callable[[int], dict[str, Any]]:
    """One row in MLflow's form, as both servers take it."""
    return lambda number: {"dataframe_records": [{column: texts[number % len(texts)]}]}


def start(project: Project) -> dict[str, Any]:
    """Seconds to `/ready` with everything, and again after kill -9."""
    Aliases(project).champion("shops", "1")
    found = {}
    for name in ("start_s", "again_s"):
        with project.serving() as (server, taken, url):
            found[name] = taken
            ask = posting(f"{url}/v1/chat/completions", lambda number: chat(f"shops/{shop(number)}", "Where are you?"))
            assert not closed(ask, 3).failed
            found["memory_mb"] = psutil.Process(server.pid).memory_info().rss / 1e6
            server.send_signal(signal.SIGKILL)
            server.wait()
    return found


def tenants(project: Project) -> dict[str, Any]:
    """Answers a second by the number of tenants, beside those of one."""
    Aliases(project).champion("shops", "1")
    draw = random.Random(0)
    skewed = draw.choices(range(SHOPS), [1 / (1 + number) for number in range(SHOPS)], k=10_000)
    arms: dict[str, Callable[[int], int]] = {
        **{str(count): lambda number, count=count: number % count for count in TENANTS},
        "skewed": lambda number: skewed[number % len(skewed)],
    }
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    with project.serving("shops") as (_, _, url):
        for turn in range(ROUNDS + 1):
            for arm in list(arms) if turn % 2 else [*arms][::-1]:
                who = arms[arm]
                ask = posting(
                    f"{url}/v1/chat/completions",
                    lambda number, who=who: chat(f"shops/{shop(who(number))}", "Where are you?"),
                )
                told = closed(ask, SECONDS).told
                assert not told["failed"]
                if turn:
                    found[arm].append(told)
    return {
        arm: {
            what: statistics.median(one[what] / other[what] for one, other in zip(runs, found["1"], strict=True))
            for what in ("a_second", "p95_ms")
        }
        | {"answers_a_second": statistics.median(one["a_second"] for one in runs)}
        for arm, runs in found.items()
    }


def servers(project: Project) -> dict[str, Any]:
    """Labels and answers, beside MLflow's server of the same version."""
    found: dict[str, Any] = {}
    for task, body in (("sentiment", rows("text", LABELLED)), ("instruct", rows("instruction", ASKED))):
        port = free_port()
        mlflow = ("mlflow", "models", "serve", "-m", f"models:/biasline-{task}@champion", "--env-manager", "local")
        found[task] = {}
        with (
            project.serving(task) as (_, _, url),
            project.running(f"http://127.0.0.1:{port}/ping", *mlflow, "--port", str(port)),
        ):
            asks = {
                "biasline": posting(f"{url}/invocations/{task}", body),
                "mlflow": posting(f"http://127.0.0.1:{port}/invocations", body),
            }
            rounds: dict[str, list[Loop]] = {who: [] for who in asks}
            for turn in range(ROUNDS + 1):
                for who in list(asks) if turn % 2 else [*asks][::-1]:
                    loop = closed(asks[who], SECONDS)
                    if turn:
                        rounds[who].append(loop)
            for who, runs in rounds.items():
                told = [one.told for one in runs]
                found[task][who] = {name: statistics.median(one[name] for one in told) for name in told[0]}
            pairs = zip(rounds["biasline"], rounds["mlflow"], strict=True)
            found[task]["times"] = statistics.median(
                one.told["a_second"] / other.told["a_second"] for one, other in pairs
            )
            rate = found[task]["mlflow"]["a_second"] / 2
            found[task]["open"] = {"a_second": rate}
            for who, ask in asks.items():
                found[task]["open"][who] = opened(ask, 3 * SECONDS, rate).told
            half = found[task]["biasline"]["a_second"] / 2
            found[task]["open"]["half"] = {
                "a_second": half,
                "biasline": opened(asks["biasline"], 3 * SECONDS, half).told,
            }
    return found


def change(project: Project) -> dict[str, Any]:
    """How long labels wait at most, asked evenly beside answers, while versions change and while a fleet comes in."""
    aliases = Aliases(project)
    for task in ("sentiment", "instruct"):
        aliases.champion(task, "1")
    aliases.drop("shops")
    found: dict[str, Any] = {"labels_a_second": STEADY, "answers_a_second": STEADY / 2}

    def moves() -> None:
        for turn in range(6):
            time.sleep(2)
            aliases.champion("sentiment", str(2 - turn % 2))
            time.sleep(1)
            aliases.champion("instruct", str(2 - turn % 2))

    def comes() -> None:
        time.sleep(2)
        aliases.champion("shops", "1")

    with project.serving() as (_, _, url):
        label = steady(posting(f"{url}/invocations/sentiment", rows("text", LABELLED)), STEADY)
        answer = steady(posting(f"{url}/invocations/instruct", rows("instruction", ASKED)), STEADY / 2)
        beside_each_other([label, answer], SECONDS)
        for name, during in (("quiet", lambda: None), ("versions", moves), ("fleet", comes)):
            mover = threading.Thread(target=during)
            mover.start()
            labels, texts = beside_each_other([label, answer], 60 if name == "fleet" else 20)
            mover.join()
            found[name] = {
                "longest_ms": labels.longest,
                "p99_ms": labels.told["p99_ms"],
                "answers_p99_ms": texts.told["p99_ms"],
                "failed": labels.failed + texts.failed,
            }
        found["fleet"]["served_s"] = served_after(project)
    return found


def served_after(project: Project) -> float:
    """Seconds that the server took for the fleet, as its log has them."""
    for line in reversed((project.folder / "server.log").read_text(encoding="utf-8").splitlines()):
        if "shops@champion" in line and "is served" in line:
            return float(line.rpartition("; ")[2].split()[0])
        if "Started server process" in line:
            break
    raise SystemExit("the fleet did not come in")


def soak(project: Project, minutes: float) -> dict[str, Any]:
    """Mixed load while aliases move; each answer held against its delta alone."""
    aliases = Aliases(project)
    for task in ("sentiment", "instruct", "shops"):
        aliases.champion(task, "1")
    who = [shop(number) for number in range(0, SHOPS, SHOPS // 50)]
    right = expected(project, who)
    wrong: list[str] = []
    moved = [0]
    stop = threading.Event()

    def moves() -> None:
        draw = random.Random(1)
        while not stop.wait(draw.uniform(0.5, 4.0)):
            aliases.champion(draw.choice(("sentiment", "instruct")), draw.choice("12"))
            moved[0] += 1

    with project.serving() as (server, _, url):

        async def ask(session: aiohttp.ClientSession, number: int) -> bool:
            if number % 3 == 0:
                text = LABELLED[number % len(LABELLED)]
                path, body, key = "classify", {"model": "sentiment", "input": [text]}, ("sentiment", "", text)
            elif number % 3 == 1:
                text = ASKED[number % len(ASKED)]
                path, body, key = "chat/completions", chat("instruct", text), ("instruct", "", text)
            else:
                name = who[number % len(who)]
                text = "Where are you?"
                path, body, key = "chat/completions", chat(f"shops/{name}", text), ("shops", name, text)
            async with session.post(f"{url}/v1/{path}", json=body) as answer:
                told, version = await answer.json(), answer.headers.get("x-biasline-version", "")
                if answer.status != 200:
                    return False
            given = told["data"][0]["label"] if path == "classify" else told["choices"][0]["message"]["content"]
            if right.get((*key, version)) != given:
                wrong.append(f"{key} version {version}: {given!r}, alone {right.get((*key, version))!r}")
            return True

        mover = threading.Thread(target=moves)
        mover.start()
        memory, process, began, loops = [], psutil.Process(server.pid), time.perf_counter(), []
        while time.perf_counter() - began < 60 * minutes:
            loops.append(closed(ask, 10))
            memory.append((time.perf_counter() - began, process.memory_info().rss / 1e6))
        stop.set()
        mover.join()
    settled = [one for one in memory if one[0] > 60 * minutes / 4] if minutes > 2 else memory
    slope = np.polyfit(*zip(*settled, strict=True), 1)[0] * 60 if len(settled) > 2 else 0.0
    return {
        "minutes": minutes,
        "answers": sum(len(one.waited) for one in loops),
        "failed": sum(one.failed for one in loops),
        "wrong": len(wrong),
        "first_wrong": wrong[:3],
        "moves": moved[0],
        "memory_mb": [round(value, 1) for _, value in memory],
        "slope_mb_a_minute": float(slope),
    }


def expected(project: Project, who: Sequence[str]) -> dict[tuple[str, ...], str]:
    """(task, tenant, text, version) → what that delta alone answers."""
    os.chdir(project.folder)
    os.environ |= {"MLFLOW_TRACKING_URI": project.environment["MLFLOW_TRACKING_URI"]}
    from mlflow import MlflowClient

    from biasline.serving.registered import read_package

    client, found = MlflowClient(), {}
    for task, versions in (("sentiment", "12"), ("instruct", "12"), ("shops", "1")):
        for number in versions:
            predictor = read_package(client.get_model_version(f"biasline-{task}", number)).predictor()
            if task == "sentiment":
                for text in LABELLED:
                    found[task, "", text, number] = predictor([{"text": text}])[0]["label"]
            for text in ASKED if task == "instruct" else ():
                found[task, "", text, number] = predictor([{"instruction": text}])[0]
            for name in who if task == "shops" else ():
                asked = {"instruction": "Where are you?", "shop": name}
                found[task, name, "Where are you?", number] = predictor([asked])[0]
    return found
