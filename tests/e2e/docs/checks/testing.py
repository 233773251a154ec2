# What the examples of docs/testing.rst come to.

# -- first

project.follow("docs/channels.rst", scripts=False)


# -- after: # conftest.py

project.give_tests_a_page()
