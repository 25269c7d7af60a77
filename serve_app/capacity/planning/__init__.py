"""From the measurements of one replica to the settings of a pool.

recommendations   one setting each, with its reason
plan              all settings for a demand, or the reasons against a plan
"""
