use rule test as test_neighbourhood with:
    wildcard_constraints:
        method=variants("neighbourhood"),
    params:
        code=method_code("neighbourhood"),
