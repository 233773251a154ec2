"""What the six have in common: the local Channels server, and a key that signs sessions."""

SECRET_KEY = "a long random text of your own"
PUSHER_APP_ID = "1"
PUSHER_KEY = "any-key"
PUSHER_SECRET = "any-secret"
PUSHER_HOST = "127.0.0.1"
PUSHER_PORT = 6001
PUSHER_SSL = False
