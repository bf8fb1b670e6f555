"""The guard child: holds one proven policy pack and judges statements by it.

A pack that does not load leaves the one before it in force. Whatever goes wrong here is a failure on the wire,
which the daemon turns into a hold.
"""

from __future__ import annotations

from pathlib import Path

from clinic_ai import confinement, wire


def main() -> None:
    """Tie our hands, then serve until the daemon closes the channel."""
    channel, _ = confinement.confine()
    from clinic_ai.domain import GuardVerdict
    from clinic_ai.errors import PolicyError
    from clinic_ai.guard.asking import QuestionTask, QuestionVerdict
    from clinic_ai.guard.engine import judge
    from clinic_ai.guard.inspection import compare_packs, describe_pack
    from clinic_ai.guard.policy import Policy
    from clinic_ai.guard.proof import check_pack, load_policy, pack_info
    from clinic_ai.guard.questions import ask
    from clinic_ai.tasks import (
        CaseReport,
        GuardCompare,
        GuardLoad,
        GuardTask,
        PackDescription,
        PackDifference,
        PackInfo,
    )

    class Desk:
        """The pack in force."""

        policy: Policy | None = None

        def load(self, params: GuardLoad, _: wire.Call) -> PackInfo:
            self.policy = load_policy(Path(params.directory))
            return pack_info(self.policy)

        def judge(self, params: GuardTask, _: wire.Call) -> GuardVerdict:
            if self.policy is None:
                raise PolicyError("The guard has no policy pack.", remedy="Load one first.")
            return judge(self.policy, params)

        def ask(self, params: QuestionTask, _: wire.Call) -> QuestionVerdict:
            if self.policy is None:
                raise PolicyError("The guard has no policy pack.", remedy="Load one first.")
            return ask(self.policy, params)

        def check(self, params: GuardLoad, _: wire.Call) -> CaseReport:
            return check_pack(Path(params.directory))

        def describe(self, params: GuardLoad, _: wire.Call) -> PackDescription:
            return describe_pack(Path(params.directory))

        def compare(self, params: GuardCompare, _: wire.Call) -> PackDifference:
            return compare_packs(Path(params.old), Path(params.new))

    desk = Desk()
    wire.serve(
        channel,
        {
            "load": wire.Method(GuardLoad, desk.load),
            "judge": wire.Method(GuardTask, desk.judge),
            "ask": wire.Method(QuestionTask, desk.ask),
            "check": wire.Method(GuardLoad, desk.check),
            "describe": wire.Method(GuardLoad, desk.describe),
            "compare": wire.Method(GuardCompare, desk.compare),
        },
    )


if __name__ == "__main__":
    main()
