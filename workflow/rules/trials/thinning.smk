use rule test as test_thinning with:
    wildcard_constraints:
        method=variants("thinning"),
    params:
        code=method_code("thinning"),
