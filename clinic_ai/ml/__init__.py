"""Tools for engines, trainers and the renderer; imported by workers and plugins only."""
