# What the examples of docs/users.rst come to.

# -- first

project.follow("docs/channels.rst")


# -- after: pusher.signin();

form = {"socket_id": "123.456"}
assert anybody().post("/pusher/user-auth", data=form).status_code == 403
answer = log_in("ana").post("/pusher/user-auth", data=form).json
assert json.loads(answer["user_data"]) == {"id": "ana"}
ana, ben = open_as("ana"), open_as("ben")
for tab in (ana, ben):
    tab.has("pusher.user.user_data")
assert post("/users/ana/note", text="Hello").status_code == 204
ana.has_said("a note")
assert "a note" not in ben.said


# -- after: <title>Notes</title>

ana, ben = open_as("ana", "index.html"), open_as("ben", "index.html")
for tab in (ana, ben):
    tab.do(lambda page: page.goto(page.url.partition("/as/")[0] + "/notes"))
    tab.has("""document.querySelector('#notes[data-pusher-state="live"]')""")
assert post("/users/ana/note", text="<b>Hi</b>").status_code == 204
ana.shows("<b>Hi</b>")
assert ben.evaluate("""document.querySelectorAll("li").length""") == 0


# -- after: pusher.connection.bind("disconnected", () => setTimeout(() => location.reload(), 2000));

assert anybody().post("/logout").status_code == 302  # nobody was logged in
with recording():
    browser = log_in("ana")
    assert browser.post("/logout").status_code == 302
assert browser.post("/pusher/user-auth", data={"socket_id": "123.456"}).status_code == 403

tab = open_tab()
tab.fill("Name", "ana")
tab.press("Log in")
tab.has("pusher.user.user_data")
tab.evaluate("window.isThisPage = true")
# The two seconds until the page loads anew begin with the answer, which may take a busy machine longer.
tab.evaluate("""{
  const later = window.setTimeout;
  const answered = new Promise((resolve) => { window.isAnswered = resolve; });
  window.setTimeout = (act, delay, ...more) =>
    delay === 2000 ? answered.then(() => later(act, delay)) : later(act, delay, ...more);
}""")
tab.evaluate("""fetch("/logout", {method: "POST", redirect: "manual"}).then(() => isAnswered())""")
tab.has("!window.isThisPage && pusher.connection.state == 'connected'")
sign_in_again = """fetch("/pusher/user-auth", {
  method: "POST", body: new URLSearchParams({socket_id: "123.456"})
}).then((answer) => answer.status)"""
assert tab.evaluate(sign_in_again) == 403
assert tab.evaluate("pusher.user.user_data") is None
