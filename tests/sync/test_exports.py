"""Exports as ESPs make them: nobody in them is opted out who has not opted out, whatever a person types.

In these files the address says it: `out-` have opted out, `in-` are subscribed, `not-asked-` bounced or never said
anything, `unknown-` cannot be told.
"""

import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from tests.processes import ROOT
from webhook_app.outbox.tables import events

EXPORTS = sorted((ROOT / "tests" / "payloads" / "exports").glob("*.csv"))
#: Lists of opt-outs, and nothing else: taken as they are.
LISTS = {
    "sendgrid_global",
    "sendgrid_group",
    "sendgrid_spam",
    "mailchimp_unsubscribed",
    "mailchimp_unsubscribed_other",
    "mailgun_unsubscribes",
    "campaign_monitor_unsubscribed",
}
#: Files in which nobody has opted out.
NOBODY = {
    "sendgrid_bounces",
    "sendgrid_blocks",
    "sendgrid_contacts",
    "mailchimp_subscribed",
    "mailchimp_cleaned",
    "mailgun_bounces",
    "hubspot_contacts",
}
#: Exports without the time of the opt-out: the other times in them are something else.
UNTIMED = {"emarsys", "emarsys_numbers", "hubspot", "hubspot_lists", "brevo_contacts", "iterable_users", "shopify"}
#: Columns that a person has to name.
NAMED = {
    "klaviyo_list": ("--time", "Email Marketing Consent Timestamp"),
    "campaign_monitor": ("--time", "Date"),
    "iterable_users": ("--identity", "email"),
    "klaviyo_events": ("--time", "Time"),
    "shopify": ("--identity", "email"),
}

#: out-1 and out-2 in every file that knows when.
MOMENTS = [datetime(2025, 10, 9, 8, 53, second, tzinfo=UTC) for second in (21, 22)]

Run = Callable[..., Result]


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def run(app: Flask) -> Run:
    def run(path: Path, *arguments: str, answer: str = "") -> Result:
        return app.test_cli_runner().invoke(args=["import", "sendgrid", str(path), *arguments], input=answer)

    return run


def stored(app: Flask) -> list[Any]:
    with app.extensions["database"].read() as connection:
        return list(connection.execute(select(events).order_by(events.c.identity_value)).all())


def advice(result: Result) -> list[str]:
    """The `--only …` that the message has a person type, as a shell would take it."""
    found = re.search(r"say (--only .*?)(?: \(|;)", result.output)
    assert found, result.output
    return shlex.split(found[1])


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_no_export_opts_out_anybody_who_did_not_ask(path: Path, run: Run, app: Flask) -> None:
    result = run(path, "--yes", "--no-time")
    assert result.exit_code == (0 if path.stem in LISTS else 1), result.output
    assert {row.identity_value.partition("-")[0] for row in stored(app)} <= {"out"}
    assert "@" not in result.output, "no address on the screen but in the three rows before the question"
    assert len(result.output.splitlines()) < 10


@pytest.mark.parametrize("path", [path for path in EXPORTS if path.stem not in NOBODY], ids=lambda path: path.stem)
def test_whoever_types_what_the_message_says_imports_exactly_those_who_opted_out(
    path: Path, run: Run, app: Flask
) -> None:
    arguments = ["--yes"]
    if path.stem in UNTIMED:
        arguments += ["--no-time"]
    arguments += NAMED.get(path.stem, ())
    result = run(path, *arguments)
    while result.exit_code:
        arguments += advice(result)
        assert len(arguments) < 9, f"it asks again and again: {result.output}"
        result = run(path, *arguments)
    rows = stored(app)
    assert [row.identity_value for row in rows] == ["out-1@example.com", "out-2@example.com"]
    if "created" in path.read_text().splitlines()[0] and path.stem.startswith("sendgrid"):
        assert [row.occurred_at / 1e6 for row in rows] == [1760000001, 1760000002]
    elif path.stem not in UNTIMED:
        assert [datetime.fromtimestamp(row.occurred_at / 1e6, UTC) for row in rows] == MOMENTS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("email,status\na@b.de,subscribed\n", "The column status says: subscribed 1."),
        ("email,Status\na@b.de,Abonniert\nc@d.de,Abbestellt\n", "The column Status says: Abonniert 1, Abbestellt 1."),
        ("email,subscribed\na@b.de,1\nc@d.de,0\n", '--only "subscribed=0"'),
        ("email,unsubscribed\na@b.de,1\nc@d.de,0\n", '--only "unsubscribed=1"'),
        ("email,Opt-In\na@b.de,True\nc@d.de,False\ne@f.de,2\n", '--only "Opt-In=False,2"'),
        ("email,acceptsEmail\na@b.de,TRUE\n", "The column acceptsEmail says: TRUE 1."),
        ("email,is_active\na@b.de,true\nc@d.de,false\n", '--only "is_active=VALUE"'),
        ("email,opted_out_at\na@b.de,2026-01-01\nc@d.de,\n", '--only "opted_out_at"'),
        ('email,Status\na@b.de,"Left, by mail"\nc@d.de,subscribed\n', "The column Status says:"),
        ("email,reason\na@b.de,UNSUBSCRIBE\nc@d.de,HARD_BOUNCE\n", '--only "reason=UNSUBSCRIBE"'),
        ("email,plan,city,age,score\na@b.de,gold,Berlin,41,7\n", "looks like a list of contacts (plan, city, age)"),
        ("email,status\na@b.de,\x1b[2Junsubscribed\nc@d.de,x\n", "The column status says: ?[2Junsubscribed 1, x 1."),
        ("email,consent\na@b.de,2026-01-01\n", "looks like a list of contacts (consent)"),
        ("Email Address,First Name,Tags\na@b.de,Jane,vip\n", "looks like a list of contacts (First Name, Tags)"),
        ("created,email,reason\n1760000000,a@b.de,Mail domain is unknown\n", "The column reason says:"),
        ("email,Sign-up source,Lifecycle Stage\na@b.de,web,lead\n", "looks like a list of contacts"),
        # As Kit exports subscribers; a state in the United States says nothing.
        ("email,state\na@b.de,cancelled\nc@d.de,active\n", "The column state says: cancelled 1, active 1."),
        ("email,state\na@b.de,yes\n", "The column state says: yes 1."),
        ("email,Marketing\na@b.de,subscribed\nc@d.de,left\n", "The column Marketing says: subscribed 1, left 1."),
        # A word in the column that is no yes may be another language's no.
        ("email,Unsubscribed\na@b.de,não\nc@d.de,sim\n", '--only "Unsubscribed=sim"'),
        ("email,Unsubscribed\na@b.de,Not unsubscribed\nc@d.de,Unsubscribed\n", '--only "Unsubscribed=Unsubscribed"'),
        ("email,Unsubscribed\na@b.de,0.0\nc@d.de,1.0\n", '--only "Unsubscribed=1.0"'),
        ("email,Opted Out\na@b.de,ei\nc@d.de,kyllä\n", '--only "Opted Out=VALUE"'),
        ("email,Blacklisted\na@b.de,✗\nc@d.de,✓\n", '--only "Blacklisted=✓"'),
        ("email,Opt-Out\na@b.de,no (back since 2025)\nc@d.de,Yes\n", '--only "Opt-Out=Yes"'),
        ("email,Opt-out date\na@b.de,0000-00-00\nc@d.de,2025-01-01\n", '--only "Opt-out date"'),
        ("email,Suppressed\na@b.de,not suppressed\nc@d.de,suppressed\n", '--only "Suppressed=suppressed"'),
        ("email,Status\na@b.de,Suppressed\nc@d.de,Unsubscribed\n", '--only "Status=Unsubscribed"'),
        ("email,Suppression Reason\na@b.de,Role account\nc@d.de,Spam\n", '--only "Suppression Reason=Spam"'),
        # Columns in other languages.
        ("E-Mail,Anmeldung,Abmeldung\na@b.de,2020-01-01,\nc@d.de,2020-01-01,2025-02-05\n", '--only "Abmeldung"'),
        ("email,Iscritto\na@b.de,sì\nc@d.de,no\n", '--only "Iscritto=no"'),
        ("Emailadresse,ABGEMELDET\na@b.de,Nein\nc@d.de,Ja\n", '--only "ABGEMELDET=Ja"'),
        ("email,Désabonné\na@b.de,Non\nc@d.de,Oui\n", '--only "Désabonné=Oui"'),
        ("email,Opt\na@b.de,I\nc@d.de,O\n", "looks like a list of contacts (Opt)"),
        ("email,Прислать\na@b.de,да\nc@d.de,нет\n", "looks like a list of contacts (Прислать)"),
        # Who came back, who is still there, and who was lost.
        ("email,opted_out_at,resubscribed_at\na@b.de,2025-01-01,2025-02-01\n", "has people who came back"),
        ("email,unsubscribe_date,active\na@b.de,2025-01-01,yes\n", "The column active says: yes 1."),
        ("email,Deleted\na@b.de,2025-01-01\n", "The column Deleted says: filled 1."),
        # Mailchimp's columns, and one that says who left.
        ("Email Address,Status,MEMBER_RATING\na@b.de,Subscribed,2\nc@d.de,Unsubscribed,2\n", '"Status=Unsubscribed"'),
    ],
)
def test_a_list_that_holds_more_than_opt_outs_is_refused(
    content: str, said: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    result = run(path, "--yes")
    assert result.exit_code == 1
    assert said in result.output
    assert "@" not in result.output
    assert stored(app) == []
    assert run(path, "--yes", "--no-time", "--all-rows").exit_code == 0
    assert len(stored(app)) == content.count("@")


@pytest.mark.parametrize(
    ("name", "only", "said"),
    [
        ("emarsys", "Opt-in=True", "--only: Opt-in=True are people who did not opt out"),
        ("emarsys", "Opt-in", "--only: Opt-in=True are people who did not opt out"),
        ("emarsys", "Opted=False", "--only: there is no column Opted; there are: user_id, E-Mail, Opt-in"),
        ("klaviyo_list", "SMS Marketing Consent=SUBSCRIBED", "is about another channel than email"),
        ("klaviyo_suppressions", "Reason=HARD_BOUNCE", "--only: Reason=HARD_BOUNCE are people who did not opt out"),
        ("sendgrid_contacts", "COUNTRY=DE", "looks like a list of contacts"),
        ("mailchimp_subscribed", "CC=de", "is a list of subscribed contacts"),
        ("mailchimp_subscribed", "CC=de", "--all-rows opts every row that --only chose out"),
        ("braze", "push_subscribe=unsubscribed", "is about another channel than email"),
    ],
)
def test_no_choice_of_rows_can_opt_out_who_is_subscribed(name: str, only: str, said: str, run: Run, app: Flask) -> None:
    path = next(path for path in EXPORTS if path.stem == name)
    result = run(path, "--yes", "--only", only)
    assert result.exit_code == 1
    assert said in result.output
    assert stored(app) == []


def test_whoever_wants_no_sms_has_not_opted_out_of_email(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,email_consent,sms_consent\na@b.de,,UNSUBSCRIBED\nc@d.de,UNSUBSCRIBED,SUBSCRIBED\n")
    result = run(path, "--yes", "--only", "sms_consent=UNSUBSCRIBED")
    assert "--only: sms_consent is about another channel than email" in result.output
    path.write_text("email,sms_status,sms_unsubscribed_at,a,b\na@b.de,UNSUBSCRIBED,2026-01-01,1,2\n")
    assert "looks like a list of contacts" in run(path, "--yes").output
    assert stored(app) == []


SOMETHING_ELSE = [
    *(
        "Unsubscribed from SMS",
        "Unsubscribed from SMS Marketing",
        "Opted out of push",
        "unsubscribed_sms",
        "SMS opt-out",
    ),
    *(
        "smsOptOut",
        "SMS_UNSUBSCRIBED",
        "Unsubscribed from all SMS",
        "Opt-out of all marketing SMS",
        "unsubscribed (fax)",
    ),
    *(
        "Opted out of WhatsApp",
        "Opt-out: phone",
        "Unsubscribed from direct mail",
        "Opted out of post",
        "SMS, not email",
    ),
    *("Unsubscribed from text messages", "unsubscribed: mobile", "SMS-Abmeldung", "Push-Abmeldung", "sms", "push"),
    *("Unsubscribed from List", "unsubscribed from list: Sale", "Opted out of one list"),
    *("Opted out of marketing calls", "phone opt-out", "Unsubscribed: phone, post"),
    *("Unsubscribed: no", "unsubscribed=false", "Opted out: 0", "Opt-out (nein)", "Unsubscribed from all email: No"),
    *("spam: no", "feedback_type=not-spam", "not-spam", "Not a complaint", "no complaints"),
]
ASKED = [
    *(
        "Unsubscribed from e-mail and SMS",
        "Unsubscribed from all channels",
        "Opted out of email, SMS",
        "unsubscribed_email",
    ),
    *("Unsubscribed from all", "Opted out of SMS and all email", "Unsubscribed by phone", "unsubscribed via mobile"),
    *(
        "Unsubscribed from all lists",
        "unsubscribe",
        "Marked as spam",
        "unsubscribed from campaign 2",
        "Opted out of all email",
    ),
]


@pytest.mark.parametrize("title", ["Status", "Unsubscribed", "reason"])
def test_a_value_may_speak_of_another_channel_of_one_list_or_of_no_opt_out(
    title: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    for value in SOMETHING_ELSE:
        path.write_text(f'email,{title}\nout-1@b.de,unsubscribed\nin-1@b.de,"{value}"\n')
        result = run(path, "--yes")
        assert f'--only "{title}=unsubscribed"' in result.output, value
        path.write_text(f'email,{title}\nin-1@b.de,"{value}"\n')
        assert run(path, "--yes", "--only", f'{title}="{value}"').exit_code == 1, value
    assert stored(app) == []


@pytest.mark.parametrize("title", ["Status", "Unsubscribed", "reason"])
def test_whoever_left_email_and_another_channel_has_left_email(
    title: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    lines = [f'out-{number}@b.de,"{value}"' for number, value in enumerate(ASKED)]
    path.write_text("\n".join([f"email,{title}", *lines, ""]))
    result = run(path, "--yes")
    assert result.exit_code == 0, result.output
    assert len(stored(app)) == len(ASKED)


PEOPLE_SAID = [
    *("Please take me off this list", "Too much spam, boring content", "You are spam, I blocked you"),
    *("opt out, I hate calls", "no longer on mobile", "Removed from the list", "SPAM: user blocked sender"),
    *("500 mails a week are too many", "It always lands in my spam filter", "Unsubscribed because I said no"),
    *("You push too many offers", "Spam complaints: 2"),
    *("Opt out of this list, you bore me", "unsubscribed from the list because of spam", "I reject your spam message"),
    *("Opt out. Calls are a nuisance", "I unsubscribed, the line is busy", "spam, blocked"),
]
SAID_HOW = [
    *("Unsubscribed by support call", "Unsubscribed by phone call", "Unsubscribed (text link)"),
    *("Opted out (mobile app)", "Unsubscribed on a mobile", "opted out in text", "Unsubscribed from mobile app"),
]


@pytest.mark.parametrize("title", ["reason", "Unsubscribe reason"])
def test_what_a_person_gives_as_the_reason_is_no_word_of_a_server_or_a_channel(
    title: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    lines = [f'out-{number}@b.de,"{value}"' for number, value in enumerate((*PEOPLE_SAID, *SAID_HOW))]
    path.write_text("\n".join([f"email,{title}", *lines, ""]))
    result = run(path, "--yes")
    assert result.exit_code == 0, result.output
    assert len(stored(app)) == len(lines)


def test_how_somebody_opted_out_is_not_what_they_opted_out_of(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    lines = [f"out-{number}@b.de,{value}" for number, value in enumerate(SAID_HOW)]
    path.write_text("\n".join(["email,Status", *lines, ""]))
    result = run(path, "--yes")
    assert result.exit_code == 0, result.output
    assert len(stored(app)) == len(SAID_HOW)


SERVERS_SAID = [
    *("550 5.7.1 Message rejected as spam", "554 blocked using zen.spamhaus.org", "550-5.7.1 likely unsolicited: spam"),
    *(
        "host mx.b.de said: 554 5.7.1 [SPAM] refused",
        "Message classified as spam",
        "Rejected: spam content",
        "421 abuse",
    ),
    *(
        "Blocked by SpamCop",
        "554 too many spam complaints",
        "Spam message rejected",
        "hit a spam trap",
        "Spam detected",
        "Content was blocked as spam",
        "Host rejected it as spam",
    ),
    *("smtp; 550 user unsubscribed", "550 5.1.1 opted out", "554: Blocked for abuse, see https://b.de/unsubscribe"),
]


@pytest.mark.parametrize("title", ["Status", "Suppressed", "reason"])
def test_what_a_mail_server_says_of_a_message_is_no_complaint(title: str, run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    for value in SERVERS_SAID:
        path.write_text(f'email,{title}\nout-1@b.de,Spam complaint\nin-1@b.de,"{value}"\n')
        assert f'--only "{title}=Spam complaint"' in run(path, "--yes").output, value
        path.write_text(f'email,{title}\nin-1@b.de,"{value}"\n')
        assert run(path, "--yes", "--only", f'{title}="{value}"').exit_code == 1, value
    assert stored(app) == []


@pytest.mark.parametrize("name", ["sendgrid_bounces", "sendgrid_blocks"])
def test_a_list_of_bounces_is_one_whatever_the_servers_said(name: str, run: Run) -> None:
    path = next(path for path in EXPORTS if path.stem == name)
    assert "is a list of bounces: nobody on it has asked for anything" in run(path, "--yes").output


def test_a_complaint_is_told_from_what_a_filter_says(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    asked = [
        "Reported as spam",
        "contactFlaggedAsSpam",
        "Blocked after a spam complaint",
        "abuse",
        "SpamReport",
        "spam",
    ]
    lines = [f"out-{number}@b.de,{value}" for number, value in enumerate(asked)]
    path.write_text("\n".join(["email,Suppression Status", *lines, ""]))
    result = run(path, "--yes")
    assert result.exit_code == 0, result.output
    path.write_text('email,unsubscribedChannelIds\nlist-1@b.de,550\nlist-2@b.de,"[451, 452]"\n')
    assert run(path, "--yes").exit_code == 0, "numbers of lists are no codes"
    assert len(stored(app)) == len(asked) + 2


TWO_COLUMNS = "Email,Unsubscribed from all email,Opted out of email: Marketing Information\n"


def test_a_no_in_one_column_about_unsubscribes_leaves_the_yes_in_another_one(
    run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"{TWO_COLUMNS}a@b.de,true,\nb@b.de,true,true\ne@b.de,true,false\n")
    result = run(path, "--yes")
    assert result.exit_code == 0, result.output
    assert [row.identity_value for row in stored(app)] == ["a@b.de", "b@b.de", "e@b.de"]


def test_who_stands_in_the_other_column_alone_takes_another_import(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("Email,Opt-out: Sale,Opt-out: News\na@b.de,true,false\nb@b.de,false,true\nin@b.de,false,false\n")
    output = run(path, "--yes").output
    assert 'say --only "Opt-out: Sale=true"; --all-rows takes everybody. Opt-out: News may say it of others' in output
    assert 'import the file again for these. To take those who did, say --only "Opt-out: News=true"' in output
    # Neither is about all email: whoever left one list has to be meant.
    assert "has people who did not opt out" in run(path, "--yes", "--only", "Opt-out: Sale=true").output
    assert run(path, "--yes", "--only", "Opt-out: Sale=true", "--all-rows").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["a@b.de"]
    assert run(path, "--yes", "--only", "Opt-out: News=true", "--all-rows").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["a@b.de", "b@b.de"]


@pytest.mark.parametrize(
    ("header", "only"),
    [
        ("Unsubscribed from all email,Opted out of email: One to One", "Opted out of email: One to One=true"),
        ("Unsubscribed,Opt-out: Sale", "Opt-out: Sale=true"),
        ("Email Opt Out,Opt-out: Sale", "Opt-out: Sale"),
        ("Is unsubscribed,Unsubscribed (Sale)", "Unsubscribed (Sale)=true"),
        ("HasOptedOutOfEmail,Unsubscribed: Sale", "Unsubscribed: Sale=true"),
        ("Email_Opt_Out__c,Newsletter_Opt_Out__c", "Newsletter_Opt_Out__c=true"),
        ("Unsubscribed?,Opted out of: Newsletter", "Opted out of: Newsletter=true"),
    ],
)
def test_whoever_left_one_list_and_not_all_email_is_subscribed(
    header: str, only: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path, everything = tmp_path / "list.csv", header.split(",")[0]
    path.write_text(f"Email,{header}\nin-1@b.de,false,true\nin-2@b.de,false,true\n")
    for arguments in ((), ("--only", only)):
        output = run(path, "--yes", *arguments).output
        assert f"has people who did not opt out. The column {everything} says: false 2." in output
    path.write_text(f"Email,{header}\nin-1@b.de,false,true\nout-1@b.de,true,false\nin-2@b.de,false,false\n")
    output = run(path, "--yes").output
    assert f'say --only "{everything}=true"' in output
    assert "import the file again" not in output, "who is left has left one list"
    assert run(path, "--yes", "--only", only).exit_code == 1
    assert run(path, "--yes", "--only", f"{everything}=true").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["out-1@b.de"]


@pytest.mark.parametrize(
    "header",
    ["Newsletter Opt Out,DoNotCall", "Newsletter Opt Out,Do Not Sell", "Do not allow Emails,Do not allow Bulk Emails"],
)
def test_a_column_about_no_email_or_one_kind_of_it_proves_no_opt_out(
    header: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    no, yes = ("Allow", "Do Not Allow") if "allow" in header else ("0", "1")
    path.write_text(f"Email,{header}\nin@b.de,{no},{yes}\nout@b.de,{yes},{yes}\n")
    assert "has people who did not opt out" in run(path, "--yes").output
    assert stored(app) == []


def test_a_time_that_is_not_meant_makes_no_list_of_contacts(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,date,source,segment,device\nout@b.de,2025-01-01,web,a,phone\n")
    assert run(path, "--yes", "--no-time").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["out@b.de"]


@pytest.mark.parametrize("only", [(), ("--only", "Action=Unsubscribed")])
def test_whoever_did_unsubscribe_and_is_not_unsubscribed_came_back(
    only: tuple[str, ...], run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,Action,Is unsubscribed\nin-1@b.de,Unsubscribed,no\nout-1@b.de,Unsubscribed,yes\n")
    assert '--only "Is unsubscribed=yes"' in run(path, "--yes", *only).output
    assert stored(app) == []


@pytest.mark.parametrize("only", [(), ("--only", "unsubscribed_at")])
def test_a_no_beside_a_time_is_somebody_who_came_back(
    only: tuple[str, ...], run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,unsubscribed_at,unsubscribed\nin-1@b.de,2024-01-01,false\nout-1@b.de,2025-01-01,true\n")
    result = run(path, "--yes", *only)
    assert '--only "unsubscribed=true"' in result.output
    assert f"--all-rows takes {'every row that --only chose' if only else 'everybody'}" in result.output
    assert stored(app) == []


def test_a_fax_is_no_email(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,Fax opt-out\na@b.de,true\n")
    assert "Fax opt-out is about another channel" in run(path, "--yes", "--only", "Fax opt-out=true").output
    assert stored(app) == []


def test_a_reason_that_is_missing_is_no_reason_to_leave_somebody_out(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,reason\na@b.de,\nc@b.de,Unsubscribed\nin@b.de,HARD_BOUNCE\nd@b.de,NULL\n")
    result = run(path, "--yes")
    assert advice(result) == ["--only", "reason=,Unsubscribed"]
    result = run(path, "--yes", *advice(result))
    assert result.exit_code == 0, result.output
    assert "--only leaves out 1 row." in result.output
    assert [row.identity_value for row in stored(app)] == ["a@b.de", "c@b.de", "d@b.de"]


def test_reasons_that_are_too_many_to_name_are_not_asked_for(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,reason\n" + "".join(f"p{number}@b.de,bounce {number}\n" for number in range(60)))
    output = run(path, "--yes").output
    assert "These are too many to name: take the rows of people who did not opt out out of the file; --all" in output
    assert "--only" not in output


def test_a_column_whose_title_is_there_twice_is_named_by_its_place(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("Email,Email,date\nshop@b.de,out@b.de,2025-01-01\n")
    for named in ((), ("--email", "email")):
        assert '--email "#1" or --email "#2"' in run(path, "--yes", *named).output
    assert run(path, "--yes", "--email", "#3").exit_code == 1
    assert "no column #4; there are: Email, Email, date" in run(path, "--yes", "--email", "#4").output
    assert run(path, "--yes", "--email", "#2").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["out@b.de"]
    path.write_text("email,Opt-out: Sale,Opt-out: Sale\na@b.de,true,false\nin@b.de,false,false\n")
    assert 'say --only "#2=true"' in run(path, "--yes").output
    result = run(path, "--yes", "--only", "Opt-out: Sale=true")
    assert '2 columns are called Opt-out: Sale: name one by its place, "#2=true" or "#3=true"' in result.output
    assert run(path, "--yes", "--only", "#2=true", "--all-rows").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["a@b.de", "out@b.de"]
    path.write_text("email,left at,left at\na@b.de,2025-01-01,2025-01-02\n")
    assert 'Say --time "#2"' in run(path, "--yes").output


def test_a_place_makes_no_header_of_a_person(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("Jane,a@b.de\nMax,c@b.de\n")
    result = run(path, "--yes", "--email", "#2")
    assert "the first line names no columns, it has an address: add a header line" in result.output
    assert "@" not in result.output
    assert stored(app) == []


def test_whoever_says_that_there_is_no_time_is_not_asked_for_one(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,created,date\na@b.de,2025-01-01,2025-01-02\n")
    assert "could each be the time" in run(path, "--yes").output
    assert run(path, "--yes", "--no-time").exit_code == 0
    assert len(stored(app)) == 1


@pytest.mark.parametrize(
    ("header", "arguments"),
    [("E-Mail;Name, Vorname;Datum", ()), ("Kontakt;Name, Vorname;Datum", ("--email", "Kontakt"))],
)
def test_of_two_delimiters_that_of_the_header_counts(
    header: str, arguments: tuple[str, ...], run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"{header}\na@b.de;Doe, Jane;2025-01-01\nc@b.de;Doe, Max;2025-01-01\n")
    result = run(path, "--yes", *arguments, "--time", "Datum")
    assert result.exit_code == 0, result.output
    assert [row.identity_value for row in stored(app)] == ["a@b.de", "c@b.de"]


@pytest.mark.parametrize("only", ["Status=", "Status= ", 'Status=""', "Status=,"])
def test_an_equals_sign_with_nothing_behind_it_means_the_empty_cells(
    only: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,Status\nin-1@b.de,subscribed\nout-1@b.de,unsubscribed\nempty@b.de,\nnull@b.de,NULL\n")
    # An empty cell says of nobody that they have opted out.
    result = run(path, "--yes", "--only", only)
    assert result.exit_code == 1
    assert "--only: an empty cell in Status says of nobody that they opted out" in result.output
    assert stored(app) == []
    assert run(path, "--yes", "--only", only, "--all-rows").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["empty@b.de", "null@b.de"]


@pytest.mark.parametrize("never", ["never", "NULL", "-", "0000-00-00", "1970-01-01"])
def test_what_is_written_where_nothing_was_is_no_choice_either(
    never: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"email,unsubscribed_at\nin-1@b.de,{never}\nout-1@b.de,2025-01-01\n")
    result = run(path, "--yes", "--no-time", "--only", f"unsubscribed_at={never}")
    assert result.exit_code == 1
    assert "--only: an empty cell in unsubscribed_at says of nobody that they opted out" in result.output
    assert stored(app) == []


def test_with_all_rows_only_those_that_were_chosen_are_taken(run: Run, app: Flask) -> None:
    path = next(path for path in EXPORTS if path.stem == "emarsys")
    assert run(path, "--yes", "--all-rows", "--only", "Opt-in=True").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["in-1@example.com"]


def test_the_question_comes_after_the_counts_and_three_rows_as_they_would_be_taken(
    run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    rows = [f"p{number}@example.com,{'out' if number else 'unsubscribed'},2026-01-0{number + 1}" for number in range(5)]
    path.write_text("\n".join(["email,status,opt_out_time", *rows, "in@example.com,subscribed,"]))
    result = run(path, "--only", "status=unsubscribed,out", answer="n\n")
    assert result.exit_code == 1
    before, _, _ = result.output.partition("Import 5 rows as opt-outs of sendgrid?")
    assert "The column status: out 4, unsubscribed 1, subscribed 1." in before
    assert "  p0@example.com  opted out 2026-01-01 00:00:00 UTC  (import)" in before
    assert before.count("@") == 3
    assert stored(app) == []


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["05/01/2026"], 'say --time-format "%d/%m/%Y" or --time-format "%m/%d/%Y"'),
        (["05/01/2026 10:15", "23/01/2026 10:15"], 'say --time-format "%d/%m/%Y %H:%M";'),
        (["05.01.2026"], 'say --time-format "%d.%m.%Y"'),
        (["Jan 5, 2026"], 'say --time-format "%b %d, %Y"'),
        (["46027.4", "46028"], "export them like 2026-01-05T10:15:30Z"),
    ],
)
def test_times_that_nobody_can_read_for_sure_are_asked_about(
    cells: list[str], said: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["email;time", *(f"p{place}@example.com;{cell}" for place, cell in enumerate(cells))]))
    result = run(path, "--yes")
    assert result.exit_code == 1
    assert said in result.output
    assert stored(app) == []


def test_a_format_and_a_zone_are_what_the_person_says(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email;time\na@example.com;05/01/2026 10:15\nb@example.com;23/07/2025 10:15\n")
    result = run(path, "--yes", "--time-format", "%d/%m/%Y %H:%M", "--time-zone", "Europe/Berlin")
    assert result.exit_code == 0, result.output
    found = [datetime.fromtimestamp(row.occurred_at / 1e6, UTC).strftime("%Y-%m-%d %H:%M") for row in stored(app)]
    assert found == ["2026-01-05 09:15", "2025-07-23 08:15"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_time_at_the_ends_of_the_calendar_costs_one_row(zone: str, run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "email;time\na@example.com;01.01.0001 00:00\nb@example.com;31.12.9999 23:59\nc@example.com;05.01.2026 10:00\n"
    )
    result = run(path, "--yes", "--time-format", "%d.%m.%Y %H:%M", "--time-zone", zone)
    assert "1  time: lies before the year 2000" in result.output
    assert "1  time: lies in the future" in result.output
    assert [row.identity_value for row in stored(app)] == ["c@example.com"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--time-format", "%Q"], "--time-format %Q is none"),
        (["--time-format", "%H:%M"], "--time-format %H:%M is none"),
        (["--time-zone", "Europe/Atlantis"], "--time-zone Europe/Atlantis is not known here"),
        (["--time-zone", "../../etc/passwd"], "is not known here"),
        (["--no-time", "--time", "time"], "contradict each other"),
    ],
)
def test_what_is_said_about_times_has_to_make_sense(arguments: list[str], said: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,time\na@example.com,2026-01-05\n")
    result = run(path, "--yes", *arguments)
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("email,left_when", 'is one of these columns when the person opted out: left_when? Say --time "left_when"'),
        ("email,exported_on,left_when", "is one of these columns when the person opted out: exported_on, left_when?"),
    ],
)
def test_a_time_that_is_there_is_never_left_out_silently(
    header: str, said: str, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\n".join([header, ",".join(["a@example.com", *["2026-01-05 10:15"] * header.count(",")])]))
    result = run(path, "--yes")
    assert result.exit_code == 1
    assert said in result.output
    assert run(path, "--yes", "--time", "left_when").exit_code == 0
    assert stored(app)[0].occurred_at / 1e6 == datetime(2026, 1, 5, 10, 15, tzinfo=UTC).timestamp()


def test_in_a_list_of_contacts_created_is_not_when_they_opted_out(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,created_at,status\na@example.com,2020-01-05,unsubscribed\nb@example.com,2020-01-05,active\n")
    result = run(path, "--yes", "--only", "status=unsubscribed")
    assert "is one of these columns when the person opted out: created_at?" in result.output


def test_a_file_that_ends_in_the_middle_of_a_row_costs_that_row(run: Run, app: Flask, tmp_path: Path) -> None:
    """Half a line may name another person: `jane@example.co` of `jane@example.com`."""
    path = tmp_path / "list.csv"
    path.write_text("name,email,time\nJane,a@example.com,2026-01-01\nMax,b@example.co")
    assert run(path, "--yes").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["a@example.com"]
    assert "is cut off: the file ends in the middle of it" in path.with_suffix(".rejects.csv").read_text()


def test_two_files_put_together_are_refused_where_their_columns_differ(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,name\na@example.com,Jane\nemail,name\nb@example.com,Max\n")
    assert "1  row: is the header again" in run(path, "--yes").output
    assert len(stored(app)) == 2
    path.write_text("email,name\nc@example.com,Jane\nname,email\nMax,d@example.com\n")
    result = run(path, "--yes")
    assert "list.csv changes its columns in line 3: import the two parts as files of their own" in result.output
    assert len(stored(app)) == 2


def test_the_same_rows_chosen_in_another_way_are_another_import(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,status\na@example.com,unsubscribed\nb@example.com,blocklisted\nc@example.com,subscribed\n")
    run(path, "--yes", "--only", "status=unsubscribed")
    assert run(path, "--yes", "--only", "status=unsubscribed,blocklisted").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize(
    ("cell", "address"),
    [
        ("Jane Doe <jane@example.com>", "jane@example.com"),
        ('"Jane ""JD"" Doe <jane@example.com>"', "jane@example.com"),
        ("mailto:jane@example.com", "jane@example.com"),
        ("\u200bjane@example.com\u00a0", "jane@example.com"),
        ("\ufeffjane@\u2060example.com", "jane@example.com"),
        ("<jane@example.com>", "jane@example.com"),
        ("'jane@example.com'", "jane@example.com"),
        ("jane@example.com; max@example.com", None),
        ("jane@example.com max@example.com", None),
        ("Jane", None),
    ],
)
def test_an_address_is_read_out_of_what_stands_around_it_or_rejected_with_the_reason(
    cell: str, address: str | None, run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"email,note\nmax@example.com,\n{cell},\n", encoding="utf-8")
    result = run(path, "--yes")
    assert result.exit_code == 0, result.output
    found = [row.identity_value for row in stored(app)]
    assert sorted(found) == sorted(["max@example.com", *([address] if address else [])])
    if address is None:
        assert ",3,email: " in path.with_suffix(".rejects.csv").read_text()


@pytest.mark.parametrize("arguments", [("--email", "Mail"), ("--only", "Mail=1")])
def test_a_first_line_that_is_no_header_is_not_shown(arguments: tuple[str, str], run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,a@example.com,Jane\n" if "--only" in arguments else "a@example.com,Jane\n")
    result = run(path, "--yes", *arguments)
    assert "there is no column Mail; there are: " in result.output
    assert "@" not in result.output


def test_a_cell_that_says_email_is_no_second_header(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("reason,email\nemail,a@example.com\nEmail,b@example.com\n")
    assert run(path, "--yes").exit_code == 0
    assert len(stored(app)) == 2


def test_a_date_that_a_spreadsheet_made_a_number_is_not_left_out_silently(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,opt_out_date\na@example.com,46027\n")
    assert "the times in opt_out_date are written like 46027" in run(path, "--yes").output


@pytest.mark.parametrize(
    "times",
    [
        ["4/15/2024", "12/31/2024"],
        ["5.4.2025", "17.11.2025"],
        ["4/15/24", "12/31/24"],
        ["5.4.25", "17.11.25 "],
        ["4-5-2024", "5-4-2024"],
        ["2025-01-01 10:00:00 +0000", "2025-01-02T10:00:00+0000"],
    ],
)
def test_a_date_is_no_code_of_a_bounce_and_a_zone_is_no_year(
    times: list[str], run: Run, app: Flask, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    rows = [f"out-{number}@b.de,{text}" for number, text in enumerate(times)]
    path.write_text("\n".join(["email,unsubscribed_at", *rows, "in@b.de,", ""]))
    assert run(path, "--yes", "--no-time", "--only", "unsubscribed_at").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["out-0@b.de", "out-1@b.de"]
    path.write_text("\n".join(["email,unsubscribed_at", *rows, ""]))
    assert run(path, "--yes", "--no-time").exit_code == 0


@pytest.mark.parametrize("code", ["5.1.1", "4.4.25 mailbox full", "5.7.26", "550 5.1.1 user unknown", "5 1 10"])
def test_a_code_of_a_bounce_is_no_date(code: str, run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"email,Suppressed\na@b.de,{code}\nc@d.de,5.1.1\n")
    for arguments in ([], ["--only", "Suppressed"]):
        assert run(path, "--yes", *arguments).exit_code == 1
    assert stored(app) == []


def test_a_time_that_is_none_is_no_opt_out(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    none = ["0000-00-00 00:00:00", "1970-01-01", "never", "00.00.0000"]
    rows = [*(f"in-{number}@b.de,{text}" for number, text in enumerate(none)), "out-1@b.de,2025-01-01 10:00:00"]
    path.write_text("\n".join(["email,unsubscribed_at", *rows, ""]))
    assert run(path, "--yes", "--no-time", "--only", "unsubscribed_at").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["out-1@b.de"]


@pytest.mark.parametrize("column", ["unsubscribed_at", "resubscribed_at"])
def test_a_column_alone_is_no_choice_where_it_also_says_no(column: str, run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"email,{column}\nout-1@b.de,2025-01-01\nout-2@b.de,2025-01-02\nin-1@b.de,no\n")
    assert run(path, "--yes", "--no-time", "--only", column).exit_code == 1
    assert stored(app) == []


def test_a_state_of_a_country_says_nothing_of_consent(run: Run, app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,state\nout-1@b.de,New York\nout-2@b.de,CA\n")
    assert run(path, "--yes").exit_code == 0
    path.write_text("email,state\nout-3@b.de,cancelled\nin-1@b.de,active\n")
    assert run(path, "--yes", "--only", "state=cancelled").exit_code == 0
    assert [row.identity_value for row in stored(app)] == ["out-1@b.de", "out-2@b.de", "out-3@b.de"]
