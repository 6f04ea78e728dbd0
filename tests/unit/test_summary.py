"""What a commit says of itself."""

import pytest
from cloud_agent.summary import message

DRAFT = "Pending_Approval/Email/EMAIL_DRAFT_{}.md"


@pytest.mark.parametrize(
    ("added", "others", "said"),
    [
        (["Inbox/a.md"], [], "Cloud: 1 file updated"),
        (["Inbox/a.md"], ["b.md"], "Cloud: 2 files updated"),
        ([DRAFT.format(1)], [], "Cloud: 1 email draft"),
        ([DRAFT.format(n) for n in range(3)], ["Dashboard.md"], "Cloud: 3 email drafts"),
        (
            [*(DRAFT.format(n) for n in range(3)), "Pending_Approval/LinkedIn/a.md"],
            [],
            "Cloud: 3 email drafts, 1 LinkedIn post",
        ),
        (["In_Progress/cloud/a.md", DRAFT.format(1)], ["Dashboard.md", "Logs/API_Usage/x.md"], "Cloud: 1 email draft"),
        ([], [DRAFT.format(1)], "Cloud: 1 file updated"),  # an edited draft is no new one
        (["Logs/Cloud/a.jsonl", "Inbox/a.md"], ["Dashboard.md"], "Cloud: 1 file updated"),
        (["Logs/Cloud/a.jsonl"], ["Dashboard.md"], "Cloud: 2 files updated"),
        (["Pending_Approval/Email/deep/a.md", "Pending_Approval/Unknown/a.md"], [], "Cloud: 2 files updated"),
        (["Pending_Approval/Email/.gitkeep"], [], "Cloud: 1 file updated"),
    ],
)
def test_message(added: list[str], others: list[str], said: str) -> None:
    assert message("cloud", added, others) == said


def test_agent_name_leads() -> None:
    assert message("local", ["a.md"], []) == "Local: 1 file updated"
