"""One update from a batch that is cut into V shards, by any number of processes.

    batch -> shards x_1 .. x_V, of n_1 .. n_V rows, n in all, in the batch's order
    noise of shard v in step t     from the generators seeded by (seed, t, v)
    loss = sum_v (n_v / n) loss_v,     gradient = sum_v (n_v / n) gradient_v

where loss_v stands for the whole data set, as the loss of any batch does. A global latent is drawn
once in each shard.

Rank r of P works on V / P of the shards. Then every rank gets a P-th of the numbers of all shards'
weighted gradients, adds them in the order of the shards, and gives the sum to all (``Rounds``); all
make the same update. So nothing depends on P: neither the noise, nor the rows of a shard, nor the
order of the additions. A product is rounded
once, on the rank that owns the shard, and a sum of two numbers has one right rounding, whatever
the machine.

Buffers that the pair changes while it runs: every shard begins with the same values. Afterwards a
buffer of floats (the averages of batch normalization) becomes the mean over the shards, weighted by
n_v / n; one of whole numbers (a count of batches) becomes that of the first shard.

A rank tells the others: a head of 16 bytes (the first 8 are those of ``Rounds``; then what became
of the rank's work, and whether Ctrl-C was pressed there), and the rows of its shards (``message``).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_vae.compat.of_torch import buffers_of
from ppl_vae.compiled.layout import write_back
from ppl_vae.core.pair import Pair
from ppl_vae.core.rounds import Rounds, slices
from ppl_vae.core.seeding import child, forked, seed_generators
from ppl_vae.core.world import World, same_bits
from ppl_vae.elbo.loss import Gradients
from ppl_vae.training.eager_step import EagerStep
from ppl_vae.training.equivalence import state_restored
from ppl_vae.training.message import Layout
from ppl_vae.training.traced_step import CompiledStepError

DONE, REFUSED, AGAIN = range(3)  # what became of a rank's work
HEAD = 16  # bytes in front of a rank's small rows


@dataclass(frozen=True)
class FailedShard:
    """The shard of a step whose update was not applied.

    Attributes:
        number: The shard's number, from 0.
        index: Its rows, (rows,).
        seed: Seeds the shard's draws.
        rank: The rank that the shard belongs to.
        gradients: The gradient of the whole batch; ``None`` where the pair raised an error.
        cause: The error of Pyro's checks, on that rank alone.
    """

    number: int
    index: Tensor
    seed: int
    rank: int
    gradients: Gradients | None = None
    cause: ValueError | None = None


class ShardedStep:
    """Updates the parameters from the shards of a batch, together with the other ranks.

    Args:
        pair: The pair.
        eager: Applies the gradient.
        gradient: Returns losses, (2,), and gradients of some rows at a KL weight.
        interpret: Gives compiled code up for batches of a size, for a reason.
        shards: V.
        seed: Seeds the noise.
        team: The ranks.

    Attributes:
        failed: The shard at fault in a step that was not applied.
        interrupted: Whether Ctrl-C was pressed on any rank before the last step was made.
    """

    def __init__(
        self,
        pair: Pair,
        eager: EagerStep,
        gradient: Callable[[Tensor, float], tuple[Tensor, Gradients]],
        interpret: Callable[[int, str], None],
        *,
        shards: int,
        seed: int,
        team: World,
    ) -> None:
        self.pair, self.eager, self.gradient, self.interpret = pair, eager, gradient, interpret
        self.shards, self.seed, self.team = shards, seed, team
        self.slots = math.ceil(shards / team.size)
        self.own = range(shards)[team.rank * self.slots : (team.rank + 1) * self.slots]
        self.parameters = eager.derivative.parameters
        self.failed: FailedShard | None = None
        self.interrupted = False
        self._changing: list[str] = []
        self._kept: dict[str, Tensor] = {}

    def prepare(self, run: Callable[[], object]) -> None:
        """Find the buffers that the pair changes while it runs, and lay out the message.

        Args:
            run: Runs the pair on some rows, in its present mode; its effects are undone.
        """
        halves = self.pair.model, self.pair.guide
        tops = [(f"{h.role}.{name}", top) for h in halves for name, top in h.layers().items()]
        places = {
            f"{top_name}.{name}.{own}": (module, own)
            for top_name, top in tops
            for name, module in top.named_modules()
            for own, buffer in buffers_of(module).items()
            if buffer is not None
        }
        unique = {id(buffers_of(module)[own]): name for name, (module, own) in places.items()}
        self._places = {name: places[name] for name in unique.values()}
        self.remember()
        with forked(0), state_restored(self.pair):
            with contextlib.suppress(ValueError):  # the first step raises it, with more words
                run()
            changed = self._changed()
        self._lay_out(changed)

    def __call__(
        self, index: Tensor, kl_weight: float, step: int, rounds: Rounds, pressed: list[bool]
    ) -> tuple[list[float], bool]:
        """Update once from the rows at ``index``, (rows,).

        Args:
            index: The rows of the batch.
            kl_weight: The weight of the latent sites.
            step: The step's number in the fit.
            rounds: The exchange with the other ranks.
            pressed: Not empty once Ctrl-C was pressed here.

        Returns:
            What ``EagerStep`` returns; where the update was not applied, ``failed`` says why.
        """
        pieces = index.tensor_split(self.shards)
        present = [v for v, piece in enumerate(pieces) if len(piece)]
        begin = [buffer.clone() for buffer in self._buffers()]
        while True:
            became, note = self._work(pieces, len(index), kl_weight, step, begin)
            head = self.sent[8:HEAD].view(torch.int32)
            head[0], head[1] = became, bool(pressed)
            small, total = rounds.sum(
                self.sent,
                lambda wide, number: self.layout.add(
                    [wide.flatten(0, 1)[v] for v in present], number
                ),
            )
            heads = small[:, 8:HEAD].view(torch.int32).tolist()
            if all(became != AGAIN for became, _ in heads):
                break
            with self.team.together("a step that is made again"):
                self._mend(note)
            begin = [buffer.clone() for buffer in self._buffers()]
            rounds.sizes = self.sizes
        self.interrupted = any(elsewhere for _, elsewhere in heads)
        for rank, (became, _) in enumerate(heads):
            if became == REFUSED:
                self._refuse(pieces, step, rank)
                return [math.nan, math.nan], False
        rows = small[:, HEAD:].reshape(self.team.size * self.slots, -1)
        losses, gradients, buffers = self.layout.read(total, [rows[v] for v in present])
        applied = self.eager.apply(losses, gradients)
        for buffer, value in zip(self._buffers(), buffers if applied else begin, strict=True):
            write_back(buffer, value)
        if not applied:
            v = self._culprit([self.layout.losses(rows[v]) for v in present])
            self.failed = self._failed_shard(pieces, step, v, gradients=gradients)
        return losses.tolist(), applied

    def _work(
        self, pieces: Sequence[Tensor], count: int, kl_weight: float, step: int,
        begin: Sequence[Tensor],
    ) -> tuple[int, str]:  # fmt: skip
        """Write the losses and gradients of this rank's shards into the message.

        Buffers are as they were afterwards.

        Args:
            pieces: The rows of all shards.
            count: Rows of the batch.
            kl_weight: The weight of the latent sites.
            step: The step's number.
            begin: The values of the changing buffers.

        Returns:
            What became of the work, and for ``AGAIN`` what stands in its way, as JSON.
        """
        became, note = DONE, ""
        self.failed = None
        for slot, v in enumerate(self.own):
            if not len(pieces[v]):
                continue
            seed_generators(self.noise_seed(step, v))
            try:
                losses, gradients = self.gradient(pieces[v], kl_weight)
            except CompiledStepError as error:
                became, note = AGAIN, json.dumps([len(pieces[v]), str(error)])
            except ValueError as error:
                self.failed = self._failed_shard(pieces, step, v, cause=error)
                became = REFUSED
            else:
                share = len(pieces[v]) / count
                self.layout.fill(self._views[slot], losses, gradients, self._buffers(), share)
            for buffer, value in zip(self._buffers(), begin, strict=True):
                write_back(buffer, value)
            if became != DONE:
                break
        late = self._changed()
        for name, buffer in self._constant().items() if late else ():
            write_back(buffer, self._kept[name])
        return (AGAIN, json.dumps(late)) if late else (became, note)

    def _mend(self, note: str) -> None:
        """Give up compiled code, or lay out the message anew, where a rank found it must be so."""
        late: set[str] = set()
        for text in self.team.texts(note, "a step that is made again"):
            found = json.loads(text or "[]")
            if found and isinstance(found[0], int):
                self.interpret(found[0], f"the compiled step failed: {found[1]}")
            else:
                late |= set(found)
        if late:
            self._lay_out(list(late))

    def _lay_out(self, changing: list[str]) -> None:
        """Lay out the message for more changing buffers, those that any rank has found."""
        texts = self.team.texts(json.dumps(changing), "the buffers that change")
        known = {*self._changing}.union(*map(json.loads, texts))
        self._changing = [name for name in self._places if name in known]
        cut = slices(self.team.size, self.slots)
        self.layout = Layout(self.parameters, self._buffers(), cut)
        small, width = HEAD + self.slots * self.layout.small, self.layout.slice
        self.sizes = small, self.slots, width
        self.device = self.parameters[0].device
        self.sent = torch.zeros(
            small + self.slots * cut * width, dtype=torch.uint8, device=self.device
        )
        rows = self.sent[HEAD:small].view(self.slots, -1)
        self.wide = self.sent[small:].view(self.slots, -1)
        self._views = [self.layout.views(*both) for both in zip(self.wide, rows, strict=True)]

    def _buffers(self) -> list[Tensor]:
        """Return the changing buffers as they are now."""
        places = [self._places[name] for name in self._changing]
        return [buffers_of(module)[name] for module, name in places]  # type: ignore[misc]

    def _constant(self) -> dict[str, Tensor]:
        """Return the buffers that have not been changed by the pair so far, by name."""
        names = [name for name in self._places if name not in self._changing]
        tables = {name: self._places[name] for name in names}
        found = {name: buffers_of(module)[own] for name, (module, own) in tables.items()}
        return {name: buffer for name, buffer in found.items() if buffer is not None}

    def remember(self) -> None:
        """Note the values of the constant buffers, which the pair alone may change from here on.

        A buffer that is constant for a thousand steps may change in the next one. torch's own
        layers write buffers without a trace in the tensor, so that the values are compared.
        """
        for name, buffer in self._constant().items():
            if name not in self._kept or not same_bits(buffer, self._kept[name]):
                self._kept[name] = buffer.detach().clone()

    def _changed(self) -> list[str]:
        """Return the constant buffers that have been changed since ``remember`` was called."""
        constant = self._constant().items()
        return [name for name, buffer in constant if not same_bits(buffer, self._kept[name])]

    def noise_seed(self, step: int, v: int) -> int:
        """Return the seed of a shard's noise."""
        seed = child(self.seed, step, v)
        assert seed is not None
        return seed

    def _refuse(self, pieces: Sequence[Tensor], step: int, rank: int) -> None:
        """Note the shard of a rank on which Pyro's checks raised."""
        number = -1 if self.failed is None else self.failed.number
        with self.team.together("the shard that failed"):
            text = self.team.text(str(number), "the shard that failed", source=rank)
        if rank != self.team.rank:
            self.failed = self._failed_shard(pieces, step, int(text))

    def _failed_shard(
        self, pieces: Sequence[Tensor], step: int, v: int, *,
        gradients: Gradients | None = None, cause: ValueError | None = None,
    ) -> FailedShard:  # fmt: skip
        """Return a shard as one that failed."""
        return FailedShard(
            v, pieces[v], self.noise_seed(step, v), v // self.slots, gradients, cause
        )

    def _culprit(self, losses: Sequence[Tensor]) -> int:
        """Return the first shard that is not finite; the first one where all are."""
        for v, loss in enumerate(losses):
            if not bool(loss.isfinite().all()):
                return v
        slots = zip(self.own, self.wide, strict=False)
        own = [v for v, row in slots if v < len(losses) and not self.layout.is_finite(row)]
        with self.team.together("a gradient that failed"):
            texts = self.team.texts(json.dumps(own), "a gradient that failed")
        return min((v for text in texts for v in json.loads(text)), default=0)
