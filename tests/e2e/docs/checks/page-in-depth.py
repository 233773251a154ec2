# What the examples of docs/page-in-depth.rst come to.

# -- after: def scores():

answer = anybody().get("/scores")
assert answer.headers["Cache-Control"] == "public, max-age=1"


# -- after: <title>The match</title>

tab = open_tab("/match")
tab.shows("1 : 0")
tab.has("""document.querySelector('#goals[data-pusher-state="live"]')""")
for score in ("1 : 1", "<b>2</b> : 1"):
    assert post("/goals", score=score).status_code == 204
    tab.shows(score)
tab.has("""document.querySelectorAll("#goals li").length === 3""")


# -- after: def set_policy(response):

tab = open_tab("/match")
tab.has("""document.querySelector('#goals[data-pusher-state="live"]')""")


# -- after: <title>A comment</title>

tab = open_as("ana", "comment.html")
tab.has("""document.querySelector('article[data-pusher-state="live"]')""")
assert tab.evaluate("""document.querySelector("p").dataset.pusherState""") is None


# -- after: export FLASK_PUSHER_JS_URL=/static/node_modules/pusher-js/dist/web/pusher.min.js

project.load()
asked = []
tab = open_as("ana", "comment.html")
tab.do(lambda page: page.on("request", lambda request: asked.append(request.url)))
tab.do(lambda page: page.reload())
tab.has("""document.querySelector('article[data-pusher-state="live"]')""")
assert sum("/static/node_modules/" in url for url in asked) == 2
assert not any("jsdelivr" in url for url in asked)


# -- after: def plain():

tab = open_tab("/plain")
tab.has("""document.querySelector('p[data-pusher-state="live"]')""")


# -- after: <title>Document {{ document }}</title>

ana = open_tab("/documents/7/edit?user=ana")
ana.has("""document.querySelector('#lock[data-pusher-state="live"]')""")
ben = open_tab("/documents/7/edit?user=ben")
ben.shows("ana is editing this.")
ben.has("""document.querySelector('#lock[data-pusher-state="live"]')""")
ben.fill("Text", "unsaved")
ana.do(lambda page: page.goto("about:blank"))
ben.has("""document.querySelector("button")?.textContent === "Save" """)
assert ben.evaluate("""document.querySelector("textarea").value""") == "unsaved"
