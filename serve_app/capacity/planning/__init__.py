"""From the measurements of one replica to the settings of a pool.

recommendations   settings with their reasons
plan              all settings for a demand, or the reasons against a plan
"""
