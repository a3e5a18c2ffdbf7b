-- shrunk: every rate pulled towards its pools by hierarchical empirical Bayes:
-- history -> batch -> category in the batch -> siblings of the style -> the SKU itself.
-- Each level is (what it counted + strength x the level above) / (what it was counted on + strength); the strengths are
-- pseudo-exposures fitted from history. Siblings leave the SKU itself out, so that nothing is counted twice there; the
-- pull towards them is only as strong as what they have shown: two sources of doubt, the SKU's difference from its
-- style and what is not known of the style, add up as the inverses of pseudo-exposures do.
-- Sizes per order are pooled as logs (see pairs.sql): a `value` is the log of a size, and a rate as it is.
-- Grain: as_of, sku_id, rate.
-- Reads: pairs, rates (rate, mean, batch_strength, category_strength, style_strength, sku_strength).
with
pooled as (
    select
        pairs.*,
        cast(sum(num) over (partition by as_of, batch_id, rate) as double) as batch_num,
        cast(sum(den) over (partition by as_of, batch_id, rate) as double) as batch_den,
        cast(sum(num) over (partition by as_of, batch_id, category, rate) as double) as category_num,
        cast(sum(den) over (partition by as_of, batch_id, category, rate) as double) as category_den,
        cast(sum(num) over (partition by as_of, batch_id, style_id, rate) - num as double) as sibling_num,
        cast(sum(den) over (partition by as_of, batch_id, style_id, rate) - den as double) as sibling_den
    from pairs
),

history_level as (
    select
        pooled.*,
        pooled.rate like '%_per_order' as is_size,
        case when pooled.rate like '%_per_order' then ln(rates.mean) else rates.mean end as history_value,
        rates.batch_strength,
        rates.category_strength,
        rates.style_strength,
        rates.sku_strength
    from pooled
    inner join rates on pooled.rate = rates.rate
),

batch_level as (
    select
        history_level.*,
        (batch_num + batch_strength * history_value) / (batch_den + batch_strength) as batch_value
    from history_level
),

category_level as (
    select
        batch_level.*,
        (category_num + category_strength * batch_value) / (category_den + category_strength) as category_value
    from batch_level
),

style_level as (
    select
        category_level.*,
        (sibling_num + style_strength * category_value) / (sibling_den + style_strength) as style_value
    from category_level
),

own_pull as (
    select
        style_level.*,
        1 / (1 / sku_strength + 1 / (sibling_den + style_strength)) as own_strength
    from style_level
),

sku_level as (
    select
        as_of,
        sku_id,
        batch_id,
        rate,
        is_measured,
        cast(num as double) as num,
        cast(den as double) as den,
        is_size,
        history_value,
        batch_value,
        category_value,
        style_value,
        (cast(num as double) + own_strength * style_value) / (cast(den as double) + own_strength) as sku_value,
        cast(den as double) / (cast(den as double) + own_strength) as own_weight,
        sqrt(sku_strength / (cast(den as double) + own_strength)) as spread,
        sku_strength / (cast(den as double) + own_strength) / (1 + sku_strength / style_strength) as unknown,
        (cast(num_late as double) + own_strength * style_value) / (cast(den_late as double) + own_strength)
        as late_value,
        (cast(num - num_late as double) + own_strength * style_value)
        / (greatest(cast(den - den_late as double), 0) + own_strength) as early_value
    from own_pull
),

as_rates as (
    select
        as_of,
        sku_id,
        batch_id,
        rate,
        is_measured,
        num,
        den,
        own_weight,
        spread,
        unknown,
        case when is_size then exp(history_value) else history_value end as history_rate,
        case when is_size then exp(batch_value) else batch_value end as batch_rate,
        case when is_size then exp(category_value) else category_value end as category_rate,
        case when is_size then exp(style_value) else style_value end as style_rate,
        case when is_size then exp(sku_value) else sku_value end as sku_rate,
        case when is_size then exp(late_value) else late_value end as late_rate,
        case when is_size then exp(early_value) else early_value end as early_rate
    from sku_level
),

compared as (
    select
        as_of,
        sku_id,
        rate,
        is_measured,
        num,
        den,
        sku_rate,
        category_rate,
        batch_rate,
        own_weight,
        -- How far the SKU's rate may still move, in units of how far SKUs of one style stand apart.
        spread,
        -- The same as a variance, over what was not known when nothing had been shown of it or its siblings.
        unknown,
        ln(sku_rate / history_rate) as level,
        ln(sku_rate / batch_rate) as lead,
        ln(style_rate / category_rate) as sibling_lead,
        ln(late_rate / early_rate) as trend,
        -- Place in the batch from 0 (last) to 1 (first), ties in the middle of the places they share; a SKU alone is 0.5.
        (
            rank() over (partition by as_of, batch_id, rate order by sku_rate asc nulls last)
            + count(*) over (partition by as_of, batch_id, rate)
            - rank() over (partition by as_of, batch_id, rate order by sku_rate desc nulls last)
        ) / (2.0 * count(*) over (partition by as_of, batch_id, rate)) as place
    from as_rates
)

select * from compared
