"""Steer a picture: by a prompt, or by a loss."""
