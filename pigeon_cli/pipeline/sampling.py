"""Drawing visual codes: one prefix prefilled once, many rows that continue from it.

Source: DESIGN.md section 2, parity table and "The shape of a fast run". Every row owns a random stream, so neither the
size nor the order of a batch changes what it draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from pigeon_cli.core.configs import SamplingConfig
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.pipeline.caches import CACHE_ARGUMENT, choose_rows, continued, joined

Model = Any
"""A causal language model of transformers, with or without peft around it."""


@dataclass(frozen=True)
class Prefix:
    """A context that has been read: keys and values, which columns count, and logits after its last token."""

    cache: DynamicCache
    attention: Tensor
    """int64 [B, L]."""
    logits: Tensor
    """[B, V]."""
    next_position: Tensor
    """int64 [B]: where the next token stands."""
    step: int = 1
    """Distance between the positions of a token and the next."""
    coming: Tensor | None = None
    """[B, S, D]: added to the embeddings of the tokens that are drawn next, one after another."""
    favour: Tensor | None = None
    """[B, S, V]: added to the scores of the tokens that are drawn next, one after another."""

    @property
    def rows(self) -> int:
        return int(self.attention.shape[0])


@dataclass(frozen=True)
class Drawn:
    """What one row drew."""

    token_ids: tuple[int, ...]
    """Without the image end."""
    log_probability: float
    """Sum of the (guided) log-softmax values of its tokens, image end included."""
    ended: bool
    """Whether an image end was drawn before the limit."""


def allowed_ids(vocabulary: Vocabulary) -> Tensor:
    """Ids that may be drawn: visual codes and image end, int64 [codes + 1]."""
    codes = torch.arange(vocabulary.first_code, vocabulary.size)
    return torch.cat([torch.tensor([vocabulary.image_end]), codes])


@torch.no_grad()
def prefill(
    model: Model,
    embeddings: Tensor,
    attention: Tensor,
    prefix: Prefix | None = None,
    positions: Tensor | None = None,
    step: int = 1,
    coming: Tensor | None = None,
    favour: Tensor | None = None,
) -> Prefix:
    """Read ``embeddings`` [B, L, D] with ``attention`` [B, L] (padding on the left), after ``prefix`` if given.

    ``positions`` int64 [B, L] are those in the whole context; by default every attended column takes the next one.
    A token drawn later stands ``step`` after the one before; ``coming`` [B, S, D] is added to such tokens, ``favour``
    [B, S, V] to what they are drawn by.
    ``prefix`` is left as it is; it needs as many rows as ``embeddings`` (:func:`select_rows` repeats them).
    """
    cache = DynamicCache() if prefix is None else continued(prefix.cache)
    seen = attention if prefix is None else torch.cat([prefix.attention, attention], dim=1)
    places = positions
    if places is None:
        places = (attention.cumsum(1) - 1).clamp(min=0)
        places = places if prefix is None else places + prefix.next_position.unsqueeze(1)
    output = model(
        inputs_embeds=embeddings,
        attention_mask=seen,
        position_ids=places,
        use_cache=True,
        logits_to_keep=1,
        **{CACHE_ARGUMENT: cache},
    )
    return Prefix(cache, seen, output.logits[:, -1].float(), places[:, -1] + step, step, coming, favour)


def select_rows(prefix: Prefix, rows: Tensor) -> Prefix:
    """The prefix with rows chosen, repeated or reordered by ``rows`` (int64); repeats share what has been read."""
    rows = rows.to(prefix.attention.device)
    attention, logits, places = (each[rows] for each in (prefix.attention, prefix.logits, prefix.next_position))
    coming, favour = (None if each is None else each[rows] for each in (prefix.coming, prefix.favour))
    return Prefix(choose_rows(prefix.cache, rows), attention, logits, places, prefix.step, coming, favour)


def join_prefixes(first: Prefix, second: Prefix, room: int = 0) -> Prefix:
    """The rows of both as one batch; the shorter one is padded on the left with columns that are not attended to.

    ``room`` tokens can be read without copying what was read before. What is ``coming`` for the first, and its
    ``favour``, are nothing in the second.
    """
    length = max(first.attention.shape[1], second.attention.shape[1])
    masks = [part.attention.new_zeros(part.rows, length) for part in (first, second)]
    for mask, part in zip(masks, (first, second), strict=True):
        mask[:, length - part.attention.shape[1] :] = part.attention
    places = torch.cat([first.next_position, second.next_position])
    coming, favour = (
        None if each is None else torch.cat([each, each.new_zeros(second.rows, *each.shape[1:])])
        for each in (first.coming, first.favour)
    )
    logits = torch.cat([first.logits, second.logits])
    cache = joined(first.cache, second.cache, room)
    return Prefix(cache, torch.cat(masks), logits, places, first.step, coming, favour)


@torch.no_grad()
def sample_codes(
    model: Model,
    prefix: Prefix,
    rows: Sequence[int],
    settings: SamplingConfig,
    *,
    allowed: Tensor,
    image_end: int,
    generators: Sequence[torch.Generator] | None = None,
    unconditional: Prefix | None = None,
    batch_rows: int | None = None,
) -> list[Drawn]:
    """Continue ``prefix`` once per entry of ``rows`` (numbers of its rows, repeats welcome).

    ``settings.temperature`` 0 takes the most likely token and needs no ``generators`` (one per entry, on the CPU,
    otherwise). ``settings.beams`` above 1 searches with beams, or samples among them at a positive temperature.
    ``allowed`` are the ids that may be drawn. With ``settings.guidance`` s other than 1, ``unconditional`` (one row,
    or one per row of ``prefix``) is continued alongside and tokens are drawn from ``u + s (c - u)`` of the two
    log-softmaxes. ``batch_rows`` bounds the rows of one forward pass, both contexts counted.
    """
    if settings.temperature > 0 and (generators is None or len(generators) != len(rows)):
        raise ValueError("every row that is drawn at a positive temperature needs its own generator")
    guided = settings.guidance != 1.0
    if guided and unconditional is None:
        raise ValueError("guidance needs an unconditional prefix")
    per_row = settings.beams * (2 if guided else 1)
    size = len(rows) if batch_rows is None else max(1, batch_rows // per_row)
    drawn: list[Drawn] = []
    for start in range(0, len(rows), size):
        chosen = torch.tensor(list(rows[start : start + size])).repeat_interleave(settings.beams)
        # Beams are chosen anew after each token, which copies all that was read.
        room = settings.maximum_tokens if settings.beams == 1 else 0
        begun = _fan_out(prefix, unconditional if guided else None, chosen, room)
        run = _Run(model, begun, settings, allowed, image_end)
        streams = None if settings.temperature == 0 or generators is None else generators[start : start + size]
        drawn += _search_beams(run, streams) if settings.beams > 1 else _draw_rows(run, streams)
    return drawn


class _Run:
    """Rows on their way: the model, their joint cache, and the scores of what may come next."""

    def __init__(self, model: Model, state: Prefix, settings: SamplingConfig, allowed: Tensor, image_end: int) -> None:
        device = state.logits.device
        self.model, self.state, self.settings = model, state, settings
        self.guided = settings.guidance != 1.0
        self.allowed = allowed.to(device)
        self.image_end = image_end
        self.is_end = self.allowed == image_end
        self.step = 0

    @property
    def rows(self) -> int:
        return self.state.rows // 2 if self.guided else self.state.rows

    def scores(self) -> Tensor:
        """Guided log-softmax over the allowed ids and what is favoured, [R, A]; the image end is out of reach until the
        minimum."""
        logs = torch.log_softmax(self.state.logits, dim=-1)
        if self.guided:
            conditional, free = logs.chunk(2)
            logs = free + self.settings.guidance * (conditional - free)
        favour = self.state.favour
        if favour is not None and self.step < favour.shape[1]:
            logs = logs + favour[: self.rows, self.step]
        logs = logs[:, self.allowed]
        if self.step < self.settings.minimum_tokens:
            logs = logs.masked_fill(self.is_end, float("-inf"))
        return logs

    def keep(self, rows: Tensor) -> None:
        """Go on with ``rows`` only, in that order; the unconditional half follows."""
        self.state = select_rows(self.state, torch.cat([rows, rows + self.rows]) if self.guided else rows)

    def advance(self, tokens: Tensor) -> None:
        """Read one token per row, int64 [R]."""
        state = self.state
        tokens = torch.cat([tokens, tokens]) if self.guided else tokens
        attention = torch.cat([state.attention, state.attention.new_ones(state.rows, 1)], dim=1)
        embedded = self.model.get_input_embeddings()(tokens.unsqueeze(1))
        if state.coming is not None and self.step < state.coming.shape[1]:
            embedded = embedded + state.coming[:, self.step, None].to(embedded.dtype)
        output = self.model(
            inputs_embeds=embedded,
            attention_mask=attention,
            position_ids=state.next_position.unsqueeze(1),
            use_cache=True,
            logits_to_keep=1,
            **{CACHE_ARGUMENT: state.cache},
        )
        places = state.next_position + state.step
        logits = output.logits[:, -1].float()
        self.state = replace(state, attention=attention, logits=logits, next_position=places)
        self.step += 1


def _draw_rows(run: _Run, generators: Sequence[torch.Generator] | None) -> list[Drawn]:
    """One token per row and step; rows that ended leave the batch once half of it has."""
    total = run.rows
    tokens: list[list[int]] = [[] for _ in range(total)]
    logs = [0.0] * total
    ended = [False] * total
    present = list(range(total))
    for step in range(run.settings.maximum_tokens):
        scores = run.scores()
        places = _pick(scores, run.settings, [generators[row] for row in present] if generators else None)
        chosen = run.allowed[places]
        gains = scores.gather(1, places.unsqueeze(1))[:, 0].tolist()
        for row, token, gain in zip(present, chosen.tolist(), gains, strict=True):
            if ended[row]:
                continue
            logs[row] += gain
            ended[row] = token == run.image_end
            if not ended[row]:
                tokens[row].append(token)
        if all(ended) or step + 1 == run.settings.maximum_tokens:
            break
        alive = [place for place, row in enumerate(present) if not ended[row]]
        if 2 * len(alive) <= len(present):
            kept = torch.tensor(alive, device=chosen.device)
            run.keep(kept)
            present, chosen = [present[place] for place in alive], chosen[kept]
        run.advance(chosen)
    return [Drawn(tuple(tokens[row]), logs[row], ended[row]) for row in range(total)]


def _pick(scores: Tensor, settings: SamplingConfig, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Column of each row's next token, int64 [R]."""
    if generators is None:
        return scores.argmax(dim=1)
    probabilities = torch.softmax(_doubles(_warp(scores, settings)), dim=1)
    ordered, places = probabilities.sort(dim=1, descending=True, stable=True)
    uniform = torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])
    below = ordered.cumsum(1) <= uniform.to(ordered.device).unsqueeze(1)
    last = (ordered > 0).sum(1) - 1
    return places.gather(1, torch.minimum(below.sum(1), last).unsqueeze(1))[:, 0].to(scores.device)


def _doubles(scores: Tensor) -> Tensor:
    """Float64, on the CPU where the device has none."""
    return (scores.cpu() if scores.device.type == "mps" else scores).double()


def _warp(scores: Tensor, settings: SamplingConfig, least: int = 1) -> Tensor:
    """Temperature, then all but the ``top_k`` best of each row out of reach (0 keeps all; at least ``least`` stay)."""
    scores = scores / settings.temperature
    count = max(least, settings.top_k)
    if settings.top_k > 0 and count < scores.shape[1]:
        smallest = scores.topk(count, dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < smallest, float("-inf"))
    return scores


@dataclass
class _Search:
    """Beams of one request: hypotheses that ended, best first, and whether better ones can still come."""

    finished: list[Drawn]
    done: bool = False

    def add(self, hypothesis: Drawn, beams: int) -> None:
        self.finished.append(hypothesis)
        self.finished.sort(key=_mean, reverse=True)
        del self.finished[beams:]


def _mean(drawn: Drawn) -> float:
    """Log-probability per token, which is how hypotheses of different lengths compare."""
    return drawn.log_probability / max(1, len(drawn.token_ids) + drawn.ended)


def _search_beams(run: _Run, generators: Sequence[torch.Generator] | None) -> list[Drawn]:
    """Beam search or beam sampling; a request stops when no running beam can beat its worst finished one."""
    beams = run.settings.beams
    requests = run.rows // beams
    searches = [_Search([]) for _ in range(requests)]
    device = run.state.logits.device
    sums = torch.full((requests, beams), float("-inf"), device=device)
    # All beams start equal: only the first may branch, unless chance tells them apart.
    sums[:, 0 if generators is None else slice(None)] = 0.0
    tokens: list[list[tuple[int, ...]]] = [[()] * beams for _ in range(requests)]
    for step in range(run.settings.maximum_tokens):
        values, origins, ids = _branch(run, sums, generators)
        picks = [
            _sort_out(searches[request], tokens[request], *candidates, beams=beams, image_end=run.image_end)
            for request, candidates in enumerate(zip(values.tolist(), origins.tolist(), ids.tolist(), strict=True))
        ]
        for request, picked in enumerate(picks):
            tokens[request] = [tokens[request][origin] + (token,) for _, origin, token in picked]
            search = searches[request]
            if len(search.finished) == beams and not search.done:
                search.done = _mean(search.finished[-1]) >= picked[0][0] / (step + 1)
        sums = torch.tensor([[value for value, _, _ in picked] for picked in picks], device=device)
        if all(search.done for search in searches) or step + 1 == run.settings.maximum_tokens:
            break
        offsets = [[request * beams + origin for _, origin, _ in picked] for request, picked in enumerate(picks)]
        run.keep(torch.tensor(offsets, device=device).flatten())
        run.advance(torch.tensor([[token for _, _, token in picked] for picked in picks], device=device).flatten())
    return [_best(search, row, values) for search, row, values in zip(searches, tokens, sums.tolist(), strict=True)]


def _branch(run: _Run, sums: Tensor, generators: Sequence[torch.Generator] | None) -> tuple[Tensor, Tensor, Tensor]:
    """The ``2 * beams`` next steps of each request, best first: sums, beams they come from, token ids; [P, 2 beams].

    Twice as many as beams, so that enough remain when some of them end.
    """
    requests, beams = sums.shape
    totals = run.scores().reshape(requests, beams, -1) + sums.unsqueeze(-1)
    columns = totals.shape[-1]
    flat = totals.reshape(requests, -1)
    if generators is None:
        values, places = flat.topk(2 * beams, dim=1)
    else:
        weights = _warp(totals.flatten(0, 1), run.settings, least=2).reshape(requests, -1)
        uniform = torch.stack(
            [torch.rand(flat.shape[1], generator=generator, dtype=torch.float64) for generator in generators]
        )
        exact, gumbel = _doubles(weights), -torch.log(-torch.log(uniform.clamp_min(1e-300)))
        drawn = (exact + gumbel.to(exact.device)).topk(2 * beams, dim=1).indices.to(flat.device)
        values, order = flat.gather(1, drawn).sort(dim=1, descending=True, stable=True)
        places = drawn.gather(1, order)
    return values, places // columns, run.allowed[places % columns]


def _sort_out(
    search: _Search,
    tokens: Sequence[tuple[int, ...]],
    values: Sequence[float],
    origins: Sequence[int],
    ids: Sequence[int],
    *,
    beams: int,
    image_end: int,
) -> list[tuple[float, int, int]]:
    """Put hypotheses that end among the best ``beams`` aside; return the ``beams`` that go on."""
    running: list[tuple[float, int, int]] = []
    for place, (value, origin, token) in enumerate(zip(values, origins, ids, strict=True)):
        if token == image_end:
            if place < beams and not search.done and value > float("-inf"):
                search.add(Drawn(tokens[origin], value, True), beams)
        elif len(running) < beams:
            running.append((value, origin, token))
    return running


def _best(search: _Search, tokens: Sequence[tuple[int, ...]], sums: Sequence[float]) -> Drawn:
    """The best hypothesis, those that reached the limit included unless the search was done before."""
    hypotheses = list(search.finished)
    if not search.done:
        hypotheses += [Drawn(row, value, False) for row, value in zip(tokens, sums, strict=True)]
    return max(hypotheses, key=_mean)


def _fan_out(prefix: Prefix, unconditional: Prefix | None, rows: Tensor, room: int) -> Prefix:
    """One row per entry of ``rows``; the unconditional rows follow the conditional ones."""
    chosen = select_rows(prefix, rows)
    if unconditional is None:
        return chosen
    free = select_rows(unconditional, rows if unconditional.rows > 1 else torch.zeros_like(rows))
    return join_prefixes(chosen, free, room)
